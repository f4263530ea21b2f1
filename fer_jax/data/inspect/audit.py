"""Duplicates, conflicting labels and class counts of a dataset, as a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_jax.data.inspect import image_sheets
from fer_jax.data.inspect.duplicates import Audit, Copy
from fer_jax.data.inspect.label_agreement import Agreement
from fer_jax.data.splits import Dataset
from fer_jax.output_folder import OutputFolder, made_files
from fer_jax.tables import format_table
from fer_jax.text_output import counted, csv_line, printable

_CHANCE = (
  "  This is chance level: the votes are not in the order of the images (about"
  " 60 % agree when they are)",
)
_KIND = "audit"  # of output files
_SHOWN = 40  # groups on the picture
_COPIES_SHOWN = 6  # of a group there


def describe(dataset: Dataset, found: Audit) -> str:
  """Returns a summary of one page."""
  h, w, _ = dataset.image_shape
  total = counted(sum(found.sizes.values()), "image")
  lines = [f"{dataset.name}: {total} of {w} x {h} pixels", "", "Classes"]
  rows = [["", *(cell for split in found.sizes for cell in (split, ""))]]
  for k, name in enumerate(found.class_names):
    row = [name]
    for split, counts in found.counts.items():
      row += [f"{counts[k]:,}", _percent(counts[k], found.sizes[split])]
    rows.append(row)
  sizes = (cell for n in found.sizes.values() for cell in (f"{n:,}", ""))
  lines += [
    *_indented([*rows, ["all", *sizes]]),
    "",
    "Duplicates, byte for byte",
  ]
  for (later, earlier), number in found.leaks.items():
    lines.append(
      f"  {_of(number, found.sizes[later])} {later} examples have their image"
      f" in {earlier} too"
    )
  for split, number in found.repeats.items():
    lines.append(
      f"  {_of(number, found.sizes[split])} {split} examples repeat an earlier"
      " one"
    )
  conflicts = found.conflicts.values()
  rows_in = sum(map(len, conflicts))
  between = sum(len({copy.split for copy in group}) > 1 for group in conflicts)
  lines.append(
    f"  {len(conflicts):,} of {len(found.groups):,} images with duplicates"
    f" have conflicting labels: {rows_in:,} examples"
  )
  if len(found.counts) > 1:
    lines.append(f"  {between:,} of these images are in more than one split")
  return "\n".join(lines)


def describe_agreement(compared: Agreement) -> str:
  """Returns a table of the labels of FER2013 and FER+, and their agreement."""
  rows = [["", *compared.columns]]
  for name, counts in zip(compared.rows, compared.table, strict=True):
    rows.append([name, *(f"{count:,}" for count in counts)])
  return "\n".join(
    [
      "Labels of FER2013 (down) against FER+'s majority (across)",
      *_indented(rows),
      f"  {_of(compared.agreeing, compared.total)} images have the same label"
      " in both; of those whose",
      "  majority is a class of FER2013, "
      f"{_of(compared.agreeing, compared.in_common)}",
      *_CHANCE[: compared.at_chance],
    ]
  )


def conflict_sheet(dataset: Dataset, found: Audit) -> Image.Image | None:
  """Draws the images whose copies have different labels; None without any.

  Each is drawn once, above the split, row and label of every copy; its number
  is that in the tables.
  """
  conflicts = found.conflicts
  groups = []
  for number, copies in list(conflicts.items())[:_SHOWN]:
    split = dataset.splits[copies[0].split]
    image = split.read(np.array([copies[0].place]))["image"][0]
    lines = [
      f"{copy.split} {copy.row}: {found.class_names[copy.label]}"
      for copy in copies[:_COPIES_SHOWN]
    ]
    if len(copies) > _COPIES_SHOWN:
      lines.append(f"and {len(copies) - _COPIES_SHOWN:,} more")
    groups.append((f"group {number}", [(image, "\n".join(lines))]))
  if not groups:
    return None
  title = f"{dataset.name}: images whose copies have different labels"
  left_out = len(conflicts) - len(groups)
  if left_out:
    title += f", {len(groups)} of {len(conflicts):,} ({left_out:,} left out)"
  return image_sheets.group_sheet(groups, title=title)


def write(
  folder: Path,
  dataset: Dataset,
  found: Audit,
  compared: Agreement | None = None,
) -> list[str]:
  """Writes the tables and the picture, and removes those of an older audit.

  Args:
    folder: the folder to write to; created if needed.
    dataset: the dataset that was audited, for its images.
    found: the result of the audit.
    compared: labels of FER2013 and FER+; None for other datasets.

  Returns:
    The names of the files.

  Raises:
    UserError: the folder cannot be written, or holds a file of one of these
      names that the package did not make.
  """
  tables = {
    "balance.csv": _balance(found),
    "duplicates.csv": _copies(dataset, found, dict(enumerate(found.groups))),
    "conflicts.csv": _copies(dataset, found, found.conflicts),
  }
  if compared:
    counts = zip(compared.rows, compared.table.tolist(), strict=True)
    tables["labels.csv"] = [
      ["fer2013", *compared.columns],
      *([name, *row] for name, row in counts),
    ]
  sheet = conflict_sheet(dataset, found)
  names = [*tables, "conflicts.png"] if sheet else [*tables]
  output = OutputFolder(folder, kind=_KIND)
  written = {output.path(name) for name in names}
  for name, rows in tables.items():
    with output.write(name) as temporary:
      table = "".join(f"{csv_line(row)}\n" for row in rows)
      temporary.write_text(table, encoding="utf-8")
  if sheet:
    with output.write("conflicts.png") as temporary:
      sheet.save(temporary)
  for stale in made_files(folder, _KIND) - written:
    stale.unlink()
  return names


def _balance(found: Audit) -> list[list[Any]]:
  rows: list[list[Any]] = [["split", "class", "count", "share"]]
  for split, counts in found.counts.items():
    size = max(found.sizes[split], 1)
    for name, count in zip(found.class_names, counts.tolist(), strict=True):
      rows.append([split, name, count, f"{count / size:.6f}"])
  return rows


def _copies(
  dataset: Dataset, found: Audit, groups: Mapping[int, Sequence[Copy]]
) -> list[list[Any]]:
  names = dataset.file_names
  file = ["file"] if names else []
  rows: list[list[Any]] = [["group", "split", "row", *file, "label"]]
  for number, group in groups.items():
    for copy in group:
      label = found.class_names[copy.label]
      file = [printable(names[copy.row])] if names else []
      rows.append([number, copy.split, copy.row, *file, label])
  return rows


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
  return [f"  {line}" for line in format_table(rows)]


def _of(number: int, total: int) -> str:
  """Says "280 of 3,589 (7.8 %)"."""
  return f"{number:,} of {total:,} ({_percent(number, total)})"


def _percent(number: int, total: int) -> str:
  return f"{100 * number / max(total, 1):.1f} %"
