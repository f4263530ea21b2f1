"""Rows of programs compiled for described devices: made once, kept in a CSV."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import reporting
from reporting import Column, Row

_SCRIPT = Path(__file__).with_name("program_case.py")
_TIMEOUT = 3600.0  # seconds for one program


def complete(
  cases: Iterable[dict[str, Any]],
  columns: list[Column],
  folder: str,
  name: str,
  fresh: bool,
) -> list[Row]:
  """Compiles what is not yet in NAME.csv, and writes each row as it comes.

  Args:
    cases: as `program_case.measure` takes them.
    columns: of what is shown.
    folder: where NAME.csv is.
    name: of the file.
    fresh: whether to compile again what it has.

  Returns:
    All rows, those of the file included.
  """
  path = Path(folder) / f"{name}.csv"
  kept: list[Row] = []
  if path.exists():
    with open(path, newline="") as f:
      kept = list(csv.DictReader(f))
  print(reporting.header(columns))
  for case in cases:
    same = [row for row in kept if _is_of(row, case)]
    if same and not fresh:
      print(reporting.line(columns, same[0]), flush=True)
      continue
    try:
      row = _compile(case)
    except (subprocess.SubprocessError, ValueError) as e:
      said = str(getattr(e, "stderr", "") or e).strip().splitlines()
      reporting.skip(f"{case['model']} {case['dtype']}", said[-1])
      continue
    print(reporting.line(columns, row), flush=True)
    kept = [old for old in kept if not _is_of(old, case)] + [row]
    _write(path, kept)
  return kept


def _is_of(row: Row, case: dict[str, Any]) -> bool:
  return all(str(row[key]) == str(value) for key, value in case.items())


def _compile(case: dict[str, Any]) -> Row:
  done = subprocess.run(
    [sys.executable, str(_SCRIPT), json.dumps(case)],
    capture_output=True,
    check=True,
    text=True,
    timeout=_TIMEOUT,
  )
  return json.loads(done.stdout.strip().splitlines()[-1])


def _write(path: Path, rows: list[Row]) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with open(path, "w", newline="") as f:
    writer = csv.DictWriter(f, list(rows[-1]), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
