"""Errors of the user's input, and checks that raise them.

Messages name config fields as `dotted.field=value` and arguments as
`name=value`; the command line shows them as flags.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
  """Bad input: the message names the thing, its value and the way out.

  Commands print it as one line on stderr and exit with status 1; a caller of
  the library catches it like any exception.
  """


class MissingRelease(UserError):
  """The release of a dataset was not found."""


class Diverged(UserError):
  """A non-finite loss: a failure of one run, which says nothing of others."""


class Interrupted(KeyboardInterrupt):
  """Work was asked to stop (a signal, a time limit), and has saved its state.

  As Ctrl-C elsewhere in Python, it passes `except Exception`, so that a loop
  over several runs that goes on after errors ends.

  Attributes:
    exit_code: 128 + the signal's number, as shells report it.
  """

  def __init__(self, message: str, signal_number: int):
    super().__init__(message)
    self.exit_code = 128 + signal_number


class ReportedElsewhere(Exception):
  """Work of several processes ended, which another process reports.

  Attributes:
    exit_code: the same in all processes.
  """

  def __init__(self, exit_code: int):
    super().__init__(f"exit code {exit_code}")
    self.exit_code = exit_code


def one_line(error: object) -> str:
  r"""Returns an error's text in one line of at most 300 characters.

  >>> one_line(ValueError("no\n  space")), one_line(TimeoutError())
  ('no space', 'TimeoutError')
  """
  return " ".join(str(error).split())[:300] or type(error).__name__


def unprintable(error: OSError) -> str:
  """Returns the message about results that stdout does not take.

  >>> unprintable(OSError(5, "Input/output error"))
  'cannot print to stdout: Input/output error; redirect it to another place'
  """
  why = error.strerror or one_line(error)
  return f"cannot print to stdout: {why}; redirect it to another place"


def out_of_memory(error: BaseException) -> bool:
  """Returns whether an error is an allocation that failed.

  JAX's errors are RuntimeErrors whose text begins with XLA's status; a failed
  allocation of the C++ kernels may have the name of C++'s exception instead.

  >>> out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
  True
  """
  if isinstance(error, RuntimeError):
    return any(s in str(error) for s in ("RESOURCE_EXHAUSTED", "bad_alloc"))
  return isinstance(error, MemoryError)


def choose(kind: str, name: str, choices: Iterable[str]) -> str:
  """Returns `name` if it is one of `choices`.

  Args:
    kind: what is being chosen, for the message ("model", "optimizer").
    name: the choice made.
    choices: the valid names.

  Raises:
    UserError: `name` is unknown; the message lists the choices.

  >>> choose("model", "resnet18", ["resnet18", "resnet34"])
  'resnet18'
  """
  known = sorted(choices)
  if name not in known:
    raise UserError(
      f"unknown {kind} {name!r}{did_you_mean(name, known)}: choose one of"
      f" {listed(known)}"
    )
  return name


def listed(names: Iterable[str]) -> str:
  """Returns names, comma-separated; one that has a comma itself is quoted.

  >>> listed(["joy, big", "sad"])
  '"joy, big", sad'
  """
  return ", ".join(f'"{name}"' if "," in name else name for name in names)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
  """Returns " (did you mean X?)", or "" if no choice is close to `name`.

  >>> did_you_mean("resnet81", ["resnet18", "alexnet"])
  ' (did you mean resnet18?)'
  """
  close = difflib.get_close_matches(str(name), list(choices), 1)
  return f" (did you mean {close[0]}?)" if close else ""


def require(ok: bool, field: str, value: Any, must: str) -> None:
  """Raises an error about a config field whose value is out of range.

  Args:
    ok: whether the value is in its range.
    field: the field's dotted name, "schedule.end_factor".
    value: its value.
    must: the end of the sentence "FIELD=VALUE must ...".

  Raises:
    UserError: not `ok`.

  >>> require(False, "batch_size", 0, "be at least 1")
  Traceback (most recent call last):
  fer_jax.errors.UserError: batch_size=0 must be at least 1
  """
  if not ok:
    raise UserError(f"{field}={value} must {must}")
