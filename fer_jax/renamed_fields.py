"""Config fields that had another name before, accepted for one release.

Flags, recipes and the `config.json` of older runs may use the old names; each
gives a warning that names the new one.
"""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

# Old name -> new name. `dataset.data_dir` meant the files of the release until
# `dataset.prepared_dir` took that name, as in tensorflow-datasets.
RENAMED = {
  "feed": "data_loader",
  "augment.erasing": "augment.random_erasing",
  "dataset.prepared_dir": "dataset.data_dir",
}
_VALUES = {
  "feed": {"resident": "in_memory", "stream": "streaming"},
}
_SWAPPED = {"dataset.data_dir": "dataset.manual_dir"}


def new_name(field: str, fields: Collection[str] = ()) -> str:
  """Returns the present name of a field.

  Args:
    field: its dotted name, old or new.
    fields: the names that are used beside it; `dataset.prepared_dir` among
      them tells that `dataset.data_dir` has its old meaning.

  >>> new_name("augment.erasing"), new_name("seed")
  ('augment.random_erasing', 'seed')
  >>> new_name("dataset.data_dir", ["dataset.prepared_dir"])
  'dataset.manual_dir'
  """
  swapped = _SWAPPED if "dataset.prepared_dir" in fields else {}
  return {**RENAMED, **swapped}.get(field, field)


def new_value(field: str, value: Any) -> Any:
  """Returns the present value of a field that had other choices before.

  Args:
    field: its old name.
    value: its old value.

  >>> new_value("feed", "resident")
  'in_memory'
  """
  values = _VALUES.get(field, {})
  return values.get(value, value) if isinstance(value, str) else value


def upgrade(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
  """Renames old fields, with one warning for all of them.

  Args:
    fields: values by dotted name.
    source: what the fields come from, for the warning.

  Returns:
    The same values by their new names; an old name wins over the new one,
    unless it has no value.
  """
  renamed = {
    field: name
    for field in fields
    if (name := new_name(field, fields)) != field
  }
  upgraded = {f: v for f, v in fields.items() if f not in renamed}
  for field, name in renamed.items():
    value = new_value(field, fields[field])
    if value not in ("", None) or name not in upgraded:
      upgraded[name] = value
  if renamed:
    warn(renamed, source)
  return upgraded


def warn(renamed: Mapping[str, str], source: str) -> None:
  """Warns of old names.

  Args:
    renamed: old name -> new name.
    source: what the names come from.
  """
  pairs = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
  warnings.warn(
    f"{source} uses old names of fields, which the next release will not"
    f" accept: {pairs}",
    FutureWarning,
    stacklevel=3,
  )
