r"""Compiles steps for TPU v5e chips, without one.

python benchmarks/tpu_program.py [--models=resnet18,mobilenet*] \
  [--dtypes=bfloat16,float32] [--batch_size=256] [--num_devices=1,4] \
  [--steps=training,evaluation] [--parallel=shard_map,pmap] \
  [--augment=none,shift,rotation] [--fresh] [--output=benchmarks/out]

Needs the extra `aot`. On several chips the step is a `shard_map`, a `pmap` or
both (`--parallel`). Per chip: FLOPs of the layers over XLA's count (above 1
where a layer's count includes products with padding, which XLA leaves out),
memory, and the time that XLA's cost model estimates, where it can, with the
utilization of the matrix units that follows.
These are estimates of a compiler, not times. Rows are written as they come,
and a second call compiles only what its folder lacks
(`--output=benchmarks/results` completes the committed table).
"""

import itertools
from collections.abc import Sequence

import described_device
import program_rows
import reporting
from absl import flags
from reporting import Column

from fer_jax.cli import app

STEPS = ("training", "evaluation")
PARALLEL = ("shard_map", "pmap")
AUGMENT = ("none", *described_device.AUGMENT)
COLUMNS = [
  Column("model", 14, lambda row: row["model"], left=True),
  Column("dtype", 8, lambda row: row["dtype"], left=True),
  Column("step", 10, lambda row: row["step"], left=True),
  Column("augment", 8, lambda row: row["augment"], left=True),
  Column("chips", 5, lambda row: str(row["num_devices"])),
  Column("parallel", 9, lambda row: row["parallel"], left=True),
  Column("compile s", 9, lambda row: str(row["compile_s"])),
  Column("useful FLOPs", 12, lambda row: str(row["useful_flops"])),
  Column("MiB moved", 9, lambda row: str(row["moved_mib"])),
  Column("temp MiB", 8, lambda row: str(row["temp_mib"])),
  Column("est. ms", 8, lambda row: str(row["estimated_ms"])),
  Column("est. MFU", 8, lambda row: str(row["estimated_utilization"])),
]


def define_flags() -> None:
  """Defines the command's flags."""
  program_rows.define_flags()
  flags.DEFINE_list("steps", ",".join(STEPS), "training, evaluation or both.")
  flags.DEFINE_list("augment", "none", f"Of {', '.join(AUGMENT)}; training.")
  flags.DEFINE_list("num_devices", "1,4", "Chips, up to 4.")
  flags.DEFINE_list("parallel", "shard_map", "On several chips.")


def main(argv: Sequence[str]) -> None:
  """Compiles all cases that the flags name."""
  del argv
  given = flags.FLAGS
  names = reporting.named_models(given.models)
  dtypes = reporting.chosen("dtypes", given.dtypes, program_rows.DTYPES)
  steps = reporting.chosen("steps", given.steps, STEPS)
  counts = reporting.whole_numbers("num_devices", given.num_devices)
  modes = reporting.chosen("parallel", given.parallel, PARALLEL)
  augment = reporting.chosen("augment", given.augment, AUGMENT)
  cases = (
    {
      "platform": "tpu",
      "model": model,
      "dtype": dtype,
      "batch_size": given.batch_size,
      "num_devices": count,
      "step": step,
      "plain": False,
      "augment": "" if augmentation == "none" else augmentation,
      "parallel": mode if count > 1 else "jit",
    }
    for model, dtype, step, count, mode, augmentation in itertools.product(
      names, dtypes, steps, counts, modes, augment
    )
    if (count > 1 or mode == modes[0])
    and (step == "training" or augmentation == augment[0])
  )
  program_rows.complete(
    cases, COLUMNS, given.output, "tpu_program", given.fresh
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
