"""Rows of programs compiled for described devices: made once, kept in a CSV.

Also the flags that gpu_program.py and tpu_program.py share.
"""

import csv
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import reporting
from absl import flags
from reporting import Column, Row

from fer_jax import errors

MODELS = (
  "leaky_cnn,alexnet,resnet18,mobilenet_v2,bi_resnet_ri,resnet50,"
  "cbam_resnet34,resnet152"
)
DTYPES = ("bfloat16", "float32")
# Packages of the extra `aot` that hold the compilers.
_COMPILERS = {
  "gpu": ("jax_cuda12_plugin", "jax_cuda13_plugin"),
  "tpu": ("libtpu",),
}
_SCRIPT = Path(__file__).with_name("program_case.py")
_TIMEOUT = 3600.0  # seconds for one program


def define_flags() -> None:
  """Defines the flags of gpu_program.py and tpu_program.py."""
  flags.DEFINE_list("models", MODELS, "Names or patterns of models.")
  flags.DEFINE_list("dtypes", ",".join(DTYPES), "bfloat16, float32 or both.")
  flags.DEFINE_integer(
    "batch_size", 256, "Images per step, over all devices.", lower_bound=1
  )
  flags.DEFINE_bool("fresh", False, "Compile again what the table has.")
  reporting.define_output()


def check_compiler(platform: str) -> None:
  """Checks that XLA can compile for a device that is not there.

  Args:
    platform: "gpu" or "tpu".

  Raises:
    UserError: the compiler is not installed.
  """
  packages = _COMPILERS[platform]
  if not any(map(importlib.util.find_spec, packages)):
    raise errors.UserError(
      f"{packages[0]} is not installed, which compiles for a described"
      f" {platform.upper()}: pip install fer_jax[aot]"
    )


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

  Raises:
    UserError: the compiler is not installed, no case could be compiled, or the
      file cannot be written.
  """
  path = Path(folder) / f"{name}.csv"
  kept: list[Row] = []
  if path.exists():
    with reporting.writing(path.parent), open(path, newline="") as f:
      kept = list(csv.DictReader(f))
  print(reporting.header(columns))
  num_shown = 0
  for case in cases:
    same = [row for row in kept if _is_of(row, case)]
    if same and not fresh:
      print(reporting.line(columns, same[0]), flush=True)
      num_shown += 1
      continue
    check_compiler(case["platform"])
    try:
      row = _compile(case)
    except (subprocess.SubprocessError, ValueError) as e:
      said = str(getattr(e, "stderr", "") or e).strip().splitlines()
      reporting.skip(f"{case['model']} {case['dtype']}", said[-1])
      continue
    print(reporting.line(columns, row), flush=True)
    num_shown += 1
    kept = [old for old in kept if not _is_of(old, case)] + [row]
    reporting.write_csv(path, kept, list(row))
  if not num_shown:
    raise errors.UserError("nothing could be compiled")
  return kept


def _is_of(row: Row, case: dict[str, Any]) -> bool:
  return all(str(row.get(key, "")) == str(value) for key, value in case.items())


def _compile(case: dict[str, Any]) -> Row:
  done = subprocess.run(
    [sys.executable, str(_SCRIPT), json.dumps(case)],
    capture_output=True,
    check=True,
    text=True,
    timeout=_TIMEOUT,
  )
  return json.loads(done.stdout.strip().splitlines()[-1])
