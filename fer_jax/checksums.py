"""SHA-256 checksums of the files of a checkpoint, or of prepared data.

`checksums.json` is written into the folder of a checkpoint before orbax commits
it, so that a complete checkpoint always has one. Reading it again tells a
damaged file (a bad disk, an interrupted copy) from a whole one.
"""

import dataclasses
import json
import pathlib

from fer_jax.files import atomic_write, sha256

FILE = "checksums.json"
# orbax writes these two after the checksums. It reads no content of them that
# changes what is restored.
_COMMIT_FILES = ("_CHECKPOINT_METADATA", "commit_success.txt")


@dataclasses.dataclass(frozen=True)
class Damage:
  """A file of a checkpoint that is not as it was written.

  Attributes:
    path: the file.
    reason: "wrong checksum", "missing file" or "unreadable file".
  """

  path: pathlib.Path
  reason: str

  def __str__(self) -> str:
    return f"{self.path} is damaged ({self.reason})"


def write(folder: pathlib.Path) -> None:
  """Writes the checksums of all files in a folder, atomically.

  Args:
    folder: a checkpoint whose files are complete.

  Raises:
    OSError: a file cannot be read, or the checksums cannot be written.
  """
  files = {
    path.relative_to(folder).as_posix(): sha256(path)
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.relative_to(folder).as_posix() not in _EXCLUDED
  }
  with atomic_write(folder / FILE) as draft:
    draft.write_text(json.dumps({"sha256": files}, indent=1) + "\n")


def exist(folder: pathlib.Path) -> bool:
  """Returns whether a checkpoint has checksums; old ones have none."""
  return (folder / FILE).exists()


def names(folder: pathlib.Path) -> list[str]:
  """Returns the names of the files that have checksums.

  Raises:
    OSError: there are no checksums.
    ValueError: they are damaged.
  """
  try:
    return list(json.loads((folder / FILE).read_bytes())["sha256"])
  except (TypeError, KeyError) as e:
    raise ValueError(f"{folder / FILE} is damaged") from e


def find_damage(folder: pathlib.Path) -> Damage | None:
  """Returns the first file that does not match its checksum.

  Args:
    folder: a checkpoint; without checksums, nothing can be found.

  Raises:
    PermissionError: a file may not be read.
  """
  if not exist(folder):
    return None
  try:
    files = dict(json.loads((folder / FILE).read_bytes())["sha256"])
  except PermissionError:
    raise
  except OSError:
    return Damage(folder / FILE, "unreadable file")
  except (ValueError, TypeError, KeyError):
    return Damage(folder / FILE, "wrong checksum")
  for name, digest in files.items():
    path = folder / name
    try:
      if sha256(path) != digest:
        return Damage(path, "wrong checksum")
    except PermissionError:
      raise
    except (FileNotFoundError, NotADirectoryError):
      return Damage(path, "missing file")
    except (OSError, ValueError):  # ValueError: a NUL in a damaged name.
      return Damage(path, "unreadable file")
  return None


_EXCLUDED = frozenset((*_COMMIT_FILES, FILE))
