"""Errors that are the user's to mend, and how the command line says them."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from absl import app, flags


class UserError(Exception):
  """Bad input: the message names the thing, its value and the way out.

  Entry files print it as one line on stderr and exit with status 1; a library
  caller catches it like any exception.
  """


class Diverged(UserError):
  """A run's loss is no finite number: its own failure, and no other run's."""


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
  """Returns `name` if it is one of `choices`.

  Args:
    kind: what is being chosen, for the message ("model", "optimizer").
    name: the choice made.
    choices: what there is.

  Raises:
    UserError: `name` is unknown; the message lists the choices.

  >>> choose("model", "resnet18", ["resnet18", "resnet34"])
  'resnet18'
  """
  known = sorted(choices)
  if name not in known:
    raise UserError(
      f"unknown {kind} {name!r}: choose one of {', '.join(known)}"
    )
  return name


def require(ok: bool, field: str, value: Any, must: str) -> None:
  """Raises the error of a configuration's field that is out of its range.

  Args:
    ok: whether the value is in its range.
    field: the field's path in the configuration, "schedule.end_factor".
    value: its value.
    must: the end of the sentence "FIELD=VALUE must ...".

  Raises:
    UserError: not `ok`.

  >>> require(False, "batch_size", 0, "be at least 1")
  Traceback (most recent call last):
  fer_jax.errors.UserError: --config.batch_size=0 must be at least 1
  """
  if not ok:
    raise UserError(f"--config.{field}={value} must {must}")


def run(
  main: Callable[[Sequence[str]], Any], *, takes_arguments: bool = False
) -> None:
  """Runs `main` as a command: `app.run`, with user errors as one line.

  Args:
    main: takes the command's name and its arguments.
    takes_arguments: whether there may be other arguments than flags.
  """

  def guarded(argv: Sequence[str]) -> None:
    try:
      if len(argv) > 1 and not takes_arguments:
        raise UserError(
          f"unexpected argument {argv[1]!r}: options are --name=value"
        )
      main(argv)
    except UserError as e:
      print(f"error: {e}", file=sys.stderr)
      _leave(1)
    except KeyboardInterrupt:
      print("interrupted", file=sys.stderr)
      sys.exit(130)
    except BrokenPipeError:  # What reads our output has seen enough: `| head`.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit(1)

  try:
    app.run(guarded, flags_parser=_parse_flags)
  except KeyboardInterrupt:
    sys.exit(130)


def _leave(status: int) -> NoReturn:
  """Ends the process at once.

  A save that failed, on a full disk, leaves threads of orbax behind that never
  end, and Python's own way out would wait for them.
  """
  sys.stdout.flush()
  sys.stderr.flush()
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


def _show_warning(message, category, filename, lineno, file=None, line=None):
  """Shows warnings meant for users as one line, without a place in code."""
  if issubclass(category, FutureWarning):
    print(f"warning: {message}", file=file or sys.stderr)
  else:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    print(text, end="", file=file or sys.stderr)


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags; a wrong one is one line, not a page of usage."""
  try:
    from fer_jax.cli import old_flags

    warnings.showwarning = _show_warning
    arguments = [_spelled(argument) for argument in argv[1:]]
    # Where ml_collections looks for the fields that are set.
    sys.argv = [argv[0], *old_flags.rename(arguments)]
    return flags.FLAGS(sys.argv)
  except UserError as e:  # of a recipe's argument
    print(f"error: {e}", file=sys.stderr)
    sys.exit(1)
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    # The last four are ml_collections': a field that is not there, or a value
    # of another type than the field's.
    message = str(e).replace("\\n", " ").replace("\\'", "'")
    if message[0] == message[-1] == "'":
      message = message[1:-1]  # A KeyError shows its message quoted.
    message = " ".join(message.split())
    if missing := re.search(r"Flag --(\w+) must have a value", message):
      message = f"--{missing[1]} is missing"
    print(f"error: {message} (--help lists the flags)", file=sys.stderr)
    sys.exit(1)
