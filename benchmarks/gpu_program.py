r"""Counts the kernels of training steps on a GPU, without one.

python benchmarks/gpu_program.py [--models=resnet18,mobilenet*] \
  [--dtypes=bfloat16,float32] [--batch_size=256] \
  [--cuda_graphs=auto,convolutions] [--fresh] [--output=benchmarks/out]

Needs the extra `aot`. XLA compiles for the description of an H200. Each model
has a row for the step as plain Flax and optax make it, and one for the
package's: kernels by group, the bytes they move, memory, CUDA graphs and what
the host launches. There are no times: nothing runs. Rows are written as they
come, and a second call compiles only what its folder lacks
(`--output=benchmarks/results` completes the committed table).
"""

import itertools
from collections.abc import Sequence

import program_rows
import reporting
from absl import flags
from reporting import Column

from fer_jax import config
from fer_jax.cli import app

COLUMNS = [
  Column("model", 14, lambda row: row["model"], left=True),
  Column("dtype", 8, lambda row: row["dtype"], left=True),
  Column("step", 7, lambda row: _kind(row), left=True),
  Column("kernels", 7, lambda row: str(row["kernels"])),
  Column("conv", 5, lambda row: str(row["convolution"])),
  Column("matmul", 6, lambda row: str(row["matrix_product"])),
  Column("norm", 5, lambda row: _norm(row)),
  Column("optim", 5, lambda row: str(row["optimizer"])),
  Column("move", 5, lambda row: _moves(row)),
  Column("MiB moved", 9, lambda row: str(row["moved_mib"])),
  Column("graphs", 6, lambda row: str(row["cuda_graphs_used"])),
  Column("launches", 8, lambda row: str(row["host_launches"])),
]


def define_flags() -> None:
  """Defines the command's flags."""
  program_rows.define_flags()
  flags.DEFINE_list("cuda_graphs", "auto", "As in configurations.")


def main(argv: Sequence[str]) -> None:
  """Compiles all cases that the flags name."""
  del argv
  given = flags.FLAGS
  names = reporting.named_models(given.models)
  dtypes = reporting.chosen("dtypes", given.dtypes, program_rows.DTYPES)
  graphs = reporting.chosen(
    "cuda_graphs", given.cuda_graphs, config.CUDA_GRAPHS
  )
  cases = (
    {
      "platform": "gpu",
      "model": model,
      "dtype": dtype,
      "batch_size": given.batch_size,
      "num_devices": 1,
      "step": "training",
      "plain": plain,
      "cuda_graphs": choice,
    }
    for choice, model, dtype, plain in itertools.product(
      graphs, names, dtypes, (True, False)
    )
  )
  program_rows.complete(
    cases, COLUMNS, given.output, "gpu_program", given.fresh
  )


def _kind(row: reporting.Row) -> str:
  return "plain" if str(row["plain"]) == "True" else "package"


def _norm(row: reporting.Row) -> str:
  forward, backward = row["batch_norm_forward"], row["batch_norm_backward"]
  return str(int(forward) + int(backward))


def _moves(row: reporting.Row) -> str:
  return str(sum(int(row[group]) for group in ("cast", "layout", "copy")))


if __name__ == "__main__":
  define_flags()
  app.run(main)
