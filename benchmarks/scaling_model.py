"""Estimates how data-parallel training scales to chips that are not there.

python benchmarks/scaling_model.py

A step on n chips takes as long as on one, with the same images per chip, plus
what the chips sum, as if nothing overlapped: the bytes of a ring's all-reduce,
2 (n - 1) / n of them over each chip's links, and a latency for every array that
is summed. Bytes, arrays and FLOPs are counted (results/collectives.csv,
gpu_program.csv, tpu_program.csv); the time of a step on one H100 is measured
for ResNet-50 (h100_steps.csv) and taken in proportion to its kernels for
ResNet-152; on a TPU v5e it is the limit by memory traffic. Bandwidths are the
makers'; latencies are assumed, and nothing here is a measurement of many chips.
"""

import csv
import dataclasses
from collections.abc import Iterator, Sequence

from reporting import RESULTS, Column, Row, header, line

from fer_jax.cli import app
from fer_jax.errors import UserError

MODELS = ("resnet50", "resnet152")
_DTYPE, _PER_CHIP = "bfloat16", 256

COLUMNS = (
  Column("chips", 12, lambda row: row["chips"], left=True),
  Column("model", 9, lambda row: row["model"], left=True),
  Column("one chip, ms", 12, lambda row: f"{row['step_ms']:.1f}"),
  Column("bytes, ms", 9, lambda row: f"{row['bytes_ms']:.2f}"),
  Column("latency, ms", 11, lambda row: f"{row['latency_ms']:.1f}"),
  Column("efficiency", 10, lambda row: f"{row['efficiency']:.0%}"),
  Column("one sum", 7, lambda row: f"{row['efficiency_one_sum']:.0%}"),
  Column("images/s", 9, lambda row: f"{row['images_per_second']:,.0f}"),
)


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that train together.

  Attributes:
    name: as the table calls it.
    num_chips: how many.
    link_bandwidth: bytes/s that a chip sends in a ring's all-reduce.
    latency: seconds of a small all-reduce; assumed.
  """

  name: str
  num_chips: int
  link_bandwidth: float
  latency: float


# NVLink 4: 900 GB/s per GPU in both directions together (NVIDIA's H100 data
# sheet). TPU v5e: 1,600 Gb/s per chip over four links (Google Cloud's
# documentation of v5e), of which a ring along one axis uses half.
SLICES = (
  Slice("8 x H100", 8, 450e9, 15e-6),
  Slice("v5e-8", 8, 100e9, 5e-6),
  Slice("v5e-64", 64, 100e9, 10e-6),
)
_V5E_MEMORY = 819e9  # bytes/s, by the same documentation


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  del argv
  print(header(COLUMNS))
  for row in estimates():
    print(line(COLUMNS, row))


def estimates() -> Iterator[Row]:
  """Yields a row for every slice and model."""
  for chips in SLICES:
    for model in MODELS:
      sums = _row(
        "collectives",
        model=model,
        num_devices=str(chips.num_chips),
        per_device=str(_PER_CHIP),
      )
      gpu = "H100" in chips.name
      step = _h100_step(model) if gpu else _v5e_step(model)
      share = 2 * (chips.num_chips - 1) / chips.num_chips
      bandwidth = share * float(sums["reduced_bytes"]) / chips.link_bandwidth
      latency = int(sums["reduced_arrays"]) * chips.latency
      total = step + bandwidth + latency
      yield {
        "chips": chips.name,
        "model": model,
        "step_ms": 1e3 * step,
        "bytes_ms": 1e3 * bandwidth,
        "latency_ms": 1e3 * latency,
        "efficiency": step / total,
        "efficiency_one_sum": step / (step + bandwidth + chips.latency),
        "images_per_second": _PER_CHIP * chips.num_chips / total,
      }


def _h100_step(model: str) -> float:
  """Returns the seconds of a step on one H100."""
  batch_size = str(_PER_CHIP)
  measured = _row("h100_steps", model="resnet50", batch_size=batch_size)
  kernels = [
    int(
      _row(
        "gpu_program",
        model=name,
        batch_size=batch_size,
        step="training",
        plain="False",
        cuda_graphs="auto",
      )["kernels"]
    )
    for name in (model, "resnet50")
  ]
  return float(measured["step_ms"]) / 1e3 * kernels[0] / kernels[1]


def _v5e_step(model: str) -> float:
  """Returns the least seconds of a step on one chip, by memory traffic."""
  program = _row(
    "tpu_program",
    model=model,
    batch_size=str(_PER_CHIP),
    num_devices="1",
    step="training",
    plain="False",
    parallel="jit",
  )
  return float(program["moved_mib"]) * 2**20 / _V5E_MEMORY


def _row(table: str, **fields: str) -> dict[str, str]:
  """Returns the first row of a committed table in which fields have values.

  Raises:
    UserError: there is no such row.
  """
  wanted = {"dtype": _DTYPE, **fields}
  path = RESULTS / f"{table}.csv"
  try:
    with path.open(newline="") as file:
      rows = list(csv.DictReader(file))
  except OSError as e:
    raise UserError(f"cannot read {path}: {e.strerror}") from e
  for row in rows:
    if all(row.get(name) == value for name, value in wanted.items()):
      return row
  values = ", ".join(f"{name}={value}" for name, value in wanted.items())
  raise UserError(f"{path} has no row with {values}: measure it first")


if __name__ == "__main__":
  app.run(main)
