r"""Counts what a training step reduces over several chips, without them.

python benchmarks/collectives.py [--models=resnet50,resnet152] \
  [--dtypes=bfloat16] [--num_devices=4,8,64] [--per_device=256] [--compile] \
  [--output=benchmarks/out]

Per step: the arrays that all chips sum and their bytes (gradients, BatchNorm's
sums, metrics), from the traced program, in which their size does not depend on
the number of chips; and the FLOPs of a chip. With --compile and the extra
`aot`, XLA compiles the step for TPU v5e chips and the operations into which it
combines the sums are counted, too; that takes minutes for each row.
"""

import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import program_rows
import reporting
from absl import flags
from matplotlib.figure import Figure
from reporting import Column, Row

from fer_jax import errors
from fer_jax.cli import app

COLUMNS = (
  Column("model", 14, lambda row: row["model"], left=True),
  Column("dtype", 8, lambda row: row["dtype"], left=True),
  Column("chips", 5, lambda row: str(row["num_devices"])),
  Column("sums", 5, lambda row: str(row["reduced_arrays"])),
  Column("MB", 7, lambda row: f"{row['reduced_bytes'] / 1e6:.1f}"),
  Column("GFLOP/chip", 10, lambda row: f"{row['gflop_per_chip']:.1f}"),
  Column("collectives", 11, lambda row: str(row["collectives"])),
)
_BYTES = {"f32": 4, "i32": 4, "bf16": 2, "ui32": 4, "i1": 1}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("models", "resnet50,resnet152", "Names or patterns.")
  flags.DEFINE_list("dtypes", "bfloat16", "float32, bfloat16 or both.")
  flags.DEFINE_list("num_devices", "4,8,64", "Numbers of chips.")
  flags.DEFINE_integer("per_device", 256, "Images of a chip.", lower_bound=1)
  flags.DEFINE_bool("compile", False, "Compile for TPU v5e (extra aot).")
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Counts all cases that the flags name."""
  del argv
  given = flags.FLAGS
  names = reporting.named_models(given.models)
  dtypes = reporting.chosen("dtypes", given.dtypes, ("float32", "bfloat16"))
  counts = reporting.whole_numbers("num_devices", given.num_devices)
  if given.compile:
    program_rows.check_compiler("tpu")
  table = reporting.Table(COLUMNS, given.output, "collectives")
  for model, dtype, count in itertools.product(names, dtypes, counts):
    case = {
      "model": model,
      "dtype": dtype,
      "num_devices": count,
      "per_device": given.per_device,
      "compile": given.compile,
    }
    table.add([in_process(case)])
  table.finish(picture)


def in_process(case: dict[str, Any]) -> Row:
  """Counts a case in a process of as many simulated devices.

  Raises:
    UserError: it failed.
  """
  flag = f"--xla_force_host_platform_device_count={case['num_devices']}"
  done = subprocess.run(
    [sys.executable, __file__, json.dumps(case)],
    env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag},
    capture_output=True,
    text=True,
  )
  if done.returncode:
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise errors.UserError(f"{case['model']} cannot be counted: {last}")
  row: Row = json.loads(done.stdout.strip().splitlines()[-1])
  return row


def count(case: dict[str, Any]) -> Row:
  """Counts one case; see `in_process`."""
  import described_device
  import jax

  from fer_jax.models import create, summary

  size = described_device.IMAGE_SIZE
  chips: Sequence[Any] = jax.devices()
  if case["compile"]:
    chips = described_device.devices("tpu", case["num_devices"])
  lowered = described_device.lower_step(
    {
      "platform": "tpu",
      "step": "training",
      "plain": False,
      "batch_size": case["per_device"] * case["num_devices"],
      **case,
    },
    chips,
  )
  sums = reduced(lowered.as_text())
  model = create(case["model"], described_device.NUM_CLASSES)
  counted = summary.summarize(model, (size, size, 1))
  collectives: int | str = ""
  if case["compile"]:
    compiled = lowered.compile().as_text()
    collectives = len(re.findall(r" all-reduce(?:-start)?\(", compiled))
  return {
    **case,
    "reduced_arrays": len(sums),
    "reduced_bytes": sum(sums),
    "largest_bytes": max(sums, default=0),
    "gflop_per_chip": counted.training_flops * case["per_device"] / 1e9,
    "collectives": collectives,
    "jax": jax.__version__,
  }


def reduced(stablehlo: str) -> list[int]:
  """Returns the bytes of every array that a program sums over the chips.

  >>> reduced('''
  ... %3 = "stablehlo.all_reduce"(%2) <{channel_handle = 1}> ({
  ...   stablehlo.return %5 : tensor<f32>
  ... }) : (tensor<3x2xf32>) -> tensor<3x2xf32>''')
  [24]
  """
  found = re.findall(
    r'"stablehlo\.all_reduce"\(.*?\n\s*\}\) : \((.*?)\) ->', stablehlo, re.S
  )
  sizes = []
  for shapes in found:
    for dims, dtype in re.findall(r"tensor<((?:\d+x)*)(\w+)>", shapes):
      sizes.append(math.prod(map(int, dims.split("x")[:-1])) * _BYTES[dtype])
  return sizes


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the bytes of each model."""
  figure = Figure(figsize=(6, 3), layout="constrained")
  axes = figure.add_subplot()
  megabytes = {row["model"]: row["reduced_bytes"] / 1e6 for row in rows}
  axes.barh(list(megabytes), list(megabytes.values()), color="#1b7f5c")
  axes.set_xlabel("summed over all chips per step, MB")
  return figure


if __name__ == "__main__":
  if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
    print(json.dumps(count(json.loads(sys.argv[1]))))
  else:
    define_flags()
    app.run(main)
