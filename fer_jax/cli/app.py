"""Runs a command: parses its flags, and shows errors as one line."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from absl import app as absl_app
from absl import flags

from fer_jax.cli import help_text, messages, old_flags
from fer_jax.cli.config_overrides import FLAG, take_overrides
from fer_jax.errors import (
  Interrupted,
  ReportedElsewhere,
  UserError,
  one_line,
  out_of_memory,
  unprintable,
)
from fer_jax.text_output import SafeStream, printable

_HELP = ("-h", "-?", "-help", "--help", "--helpshort")


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of `fer-jax`, which is also a module: `python -m fer_jax.X`.

  Attributes:
    name: as it follows `fer-jax`.
    doc: the module's docstring, which --help shows.
    define_flags: defines the command's flags.
    main: runs the command, with its name and the arguments besides flags.
    takes_arguments: whether there may be arguments besides flags.
    handles_signals: as for `run`.
  """

  name: str
  doc: str | None
  define_flags: Callable[[], None]
  main: Callable[[Sequence[str]], Any]
  takes_arguments: bool = False
  handles_signals: bool = False

  def run(self, arguments: Sequence[str] | None = None) -> None:
    """Runs the command and ends the process.

    Args:
      arguments: those of the process if not given.
    """
    self.define_flags()
    if arguments is None:
      arguments = sys.argv[1:]
    run(
      self.main,
      takes_arguments=self.takes_arguments,
      doc=self.doc,
      argv=[f"fer-jax {self.name}", *arguments],
      handles_signals=self.handles_signals,
    )


def run(
  main: Callable[[Sequence[str]], Any],
  *,
  takes_arguments: bool = False,
  doc: str | None = None,
  argv: Sequence[str] | None = None,
  handles_signals: bool = False,
) -> None:
  """Runs `main` with its flags parsed, and ends the process.

  User errors and a lack of memory are one line on stderr and status 1; an
  interruption is a line and the status 128 + signal.

  Args:
    main: takes the command's name and its arguments.
    takes_arguments: whether there may be arguments besides flags.
    doc: what --help shows above the flags; the main module's docstring if not
      given.
    argv: the command's name and its arguments; those of the process if not
      given.
    handles_signals: whether `main` itself handles SIGTERM and SIGHUP, as
      training does. In other commands they raise `Interrupted`, as Ctrl-C
      raises KeyboardInterrupt.
  """

  def guarded(argv: Sequence[str]) -> None:
    try:
      if len(argv) > 1 and not takes_arguments:
        raise UserError(
          f"unexpected argument {argv[1]!r}: options are --name=value"
        )
      main(argv)
    except UserError as e:
      _print_error(messages.with_flags(str(e), flags.FLAGS))
      _leave(1)
    except Interrupted as e:
      print(e, file=SafeStream(sys.stderr))
      _leave(e.exit_code)
    except ReportedElsewhere as e:
      _leave(e.exit_code)
    except (MemoryError, RuntimeError) as e:
      if not out_of_memory(e):
        raise
      _print_error(
        f"out of memory ({one_line(e)}): use smaller batches (batch_size,"
        " eval_batch_size), smaller images or a smaller model"
      )
      _leave(1)
    except KeyboardInterrupt:
      print("interrupted", file=SafeStream(sys.stderr))
      _leave(130)

  def parse(argv: Sequence[str]) -> list[str]:
    return _parse_flags(argv, doc)

  if not handles_signals:
    _raise_at_signals()
  if isinstance(sys.stdout, io.TextIOWrapper):  # Names may be in any script.
    sys.stdout.reconfigure(errors="backslashreplace")
  warnings.showwarning = _show_warning
  # It would tell where its own cache is, if the user has no place for one.
  logging.getLogger("matplotlib").setLevel(logging.ERROR)
  given = list(sys.argv if argv is None else argv)
  try:
    with checked_stdout():
      absl_app.run(guarded, argv=given, flags_parser=parse)
  except Interrupted as e:
    sys.exit(e.exit_code)
  except KeyboardInterrupt:
    sys.exit(130)


@contextlib.contextmanager
def checked_stdout() -> Iterator[None]:
  """Ends the process if stdout cannot be written: with one line, status 1.

  A reader of it that has left, as `| head` does, needs no line.
  """
  try:
    try:
      yield
    finally:
      if sys.stdout is not None:
        sys.stdout.flush()
  except OSError as e:
    has_left = isinstance(e, BrokenPipeError)
    if not has_left and not _stdout_fails():
      raise
    if not has_left:
      _print_error(unprintable(e))
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _stdout_fails() -> bool:
  """Returns whether an OSError may be of stdout: it fails again."""
  try:
    print(flush=True)
  except OSError:
    return True
  return False


def _raise_at_signals() -> None:
  """Makes SIGTERM and SIGHUP raise Interrupted, so that outputs are saved."""
  numbers = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP.
  ]

  def interrupt(number: int, frame: FrameType | None) -> None:
    for each in numbers:  # A closing terminal sends several.
      signal.signal(each, signal.SIG_IGN)
    raise Interrupted(f"interrupted by {signal.Signals(number).name}", number)

  with contextlib.suppress(ValueError):  # Not the main thread.
    for number in numbers:
      if signal.getsignal(number) != signal.SIG_IGN:  # Ignored under nohup.
        signal.signal(number, interrupt)


def _print_error(message: str) -> None:
  print(f"error: {printable(message)}", file=SafeStream(sys.stderr))


def _leave(status: int) -> NoReturn:
  """Ends the process at once.

  A save that failed, on a full disk, leaves threads of orbax behind that never
  end, and Python's own way out would wait for them. When it does not wait, as
  for a program that XLA is compiling, the process ends in a segmentation fault.
  """
  SafeStream(sys.stdout).flush()
  SafeStream(sys.stderr).flush()
  os._exit(status)


def _spelled(argument: str) -> str:
  """A flag as absl spells it: --no-detect is --nodetect, --batch-size has _."""
  name, equals, value = argument.partition("=")
  if not name.startswith("--") or "." in name:
    return argument
  name = name[2:].replace("-", "_")
  if name.startswith("no_") and name[3:] in flags.FLAGS:
    name = "no" + name[3:]
  return f"--{name}{equals}{value}"


def _parse_flags(argv: Sequence[str], doc: str | None) -> list[str]:
  """Parses flags; a wrong one is one line, not a page of usage.

  Arguments after `--` are not flags, and stay as they are.
  """
  end = argv.index("--") if "--" in argv else len(argv)
  given = argv[1:end]
  if any(argument in _HELP for argument in given):
    print(help_text.render(flags.FLAGS, doc))
    sys.exit(0)
  if "--helpfull" in given:
    print(help_text.render(flags.FLAGS, doc, full=True))
    sys.exit(0)
  arguments = old_flags.rename([_spelled(argument) for argument in given])
  try:
    if FLAG in flags.FLAGS:
      arguments = take_overrides(arguments)
    return flags.FLAGS([argv[0], *arguments, *argv[end:]])
  except (flags.Error, ValueError) as e:  # absl raises both.
    message = " ".join(str(e).split())
    if missing := re.search(r"Flag --(\w+) must have a value", message):
      message = f"--{missing[1]} is missing"
    _print_error(f"{message} (--help lists the flags)")
    sys.exit(1)


def _show_warning(
  message: Warning | str,
  category: type[Warning],
  filename: str,
  lineno: int,
  file: Any = None,
  line: str | None = None,
) -> None:
  """Shows warnings meant for users as one line, without the place in code."""
  if issubclass(category, FutureWarning):
    text = f"warning: {message}\n"
  else:
    text = warnings.formatwarning(message, category, filename, lineno, line)
  SafeStream(file or sys.stderr).write(text)
