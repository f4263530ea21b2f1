"""Tells the URL of an object store from a path of this machine."""

import os
import re
from pathlib import Path

from fer_jax.errors import UserError

PathLike = str | os.PathLike[str]

_OTHER_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# pathlib makes s3:/bucket of s3://bucket, which notebooks may pass.
_URL = re.compile(r"(gs|s3):/{1,2}(?=[^/])", re.IGNORECASE)


def is_url(path: PathLike) -> bool:
  """Returns whether a path is on an object store.

  >>> is_url("s3://bucket/run"), is_url("runs/example")
  (True, False)
  """
  return _URL.match(os.fspath(path)) is not None


def to_path(path: PathLike) -> Path:
  """Returns a path to name a file or folder by: `~` is expanded.

  Args:
    path: of this machine, which becomes a `pathlib.Path`, or a URL, which
      becomes an `epath.Path`. Only this package opens the latter.

  Raises:
    UserError: it is a URL of another kind, or `~` cannot be expanded.

  >>> str(to_path("s3://bucket/run") / "config.json")
  's3://bucket/run/config.json'
  """
  text = os.fspath(path)
  if not is_url(text):
    if _OTHER_URL.match(text):
      raise UserError(f"{text} is neither s3://, gs:// nor a folder")
    try:
      return Path(text).expanduser()
    except RuntimeError as e:  # There is no such user, or no home.
      raise UserError(f"{text}: no such home: give the path without ~") from e
  from etils import epath  # Slow to import; most paths are local.

  return epath.Path(_URL.sub(lambda m: f"{m[1].lower()}://", text, count=1))


def require_named(workdir: PathLike) -> None:
  """Refuses an empty workdir, which would be the current folder.

  Args:
    workdir: what was given.

  Raises:
    UserError: it is empty.
  """
  if not os.fspath(workdir):
    raise UserError("workdir='' must name a folder; '.' is the current one")


def require_local(path: PathLike, name: str, *, is_input: bool = False) -> Path:
  """Returns a path of this machine, where URLs are not supported.

  Args:
    path: what was given; `~` is expanded.
    name: the argument that it was given for.
    is_input: whether it is read, not written.

  Raises:
    UserError: it is empty or a URL, or `~` cannot be expanded.
  """
  text = os.fspath(path)
  if not text:  # It would be the current folder.
    raise UserError(f"{name}='' must name a path; '.' is the current folder")
  if is_url(text) or _OTHER_URL.match(text):
    advice = (
      "give one" if is_input else "give one, and copy it there at the end"
    )
    raise UserError(f"{name}={text} is not a path of this machine: {advice}")
  return to_path(text)
