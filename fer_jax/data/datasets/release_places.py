"""Places where the release of a dataset may lie."""

from collections.abc import Iterable
from pathlib import Path

from fer_jax.errors import UserError
from fer_jax.files import data_folder
from fer_jax.text_output import printable


def manual_folders(data_dir: str) -> list[Path]:
  """Returns tensorflow-datasets' folders of releases, in order.

  Args:
    data_dir: the user's folder of prepared data, or "".
  """
  roots = [Path(data_dir).expanduser()] if data_dir else []
  folders = [root / "downloads" / "manual" for root in (*roots, data_folder())]
  return list(dict.fromkeys(folders))


def candidate_folders(
  manual_dir: str, data_dir: str, names: Iterable[str]
) -> list[Path]:
  """Returns the folders to look in, in order.

  Args:
    manual_dir: the user's folder, which is then the only place; or "".
    data_dir: the user's folder of prepared data, or "".
    names: folders in such a place that may hold the release, too.

  Raises:
    UserError: `manual_dir` is no folder.
  """
  if manual_dir:
    places = [Path(manual_dir).expanduser()]
    if not places[0].is_dir():
      what = "is no folder" if places[0].exists() else "does not exist"
      raise UserError(
        f"dataset.manual_dir={printable(manual_dir)} {what}: give the folder of"
        " the unpacked release"
      )
  else:
    places = manual_folders(data_dir)
  names = list(names)
  # The manual folder itself may hold any release: only named folders there.
  return [
    place / name
    for place in places
    for name in (("", *names) if manual_dir else names)
    if (place / name).is_dir()
  ]
