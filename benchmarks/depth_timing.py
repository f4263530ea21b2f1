r"""Times training and inference of ResNets of every depth, and other models.

python benchmarks/depth_timing.py [--models=resnet18,mobilenet*] \
  [--batch_sizes=64] [--dtypes=float32] [--image_sizes=48] [--devices=1,2] \
  [--turns=5] [--steps=3] [--output=benchmarks/out] [--dump_hlo=DIR]

Each case is measured in a separate process: the training step of `fer-jax
train` (forward, backward, Adam, batch gathered from data on the device), its
compilation with an empty and with a full cache, and inference. Times are
medians over repetitions, with the fastest and the slowest; operations are
counted per layer (`fer_jax.models.summary`) and, for comparison, by XLA.
"""

import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import depth_worker
import matplotlib
import reporting
import workers
from absl import flags
from matplotlib.figure import Figure
from reporting import Column, Row

from fer_jax.cli import app

DEPTHS = "resnet18,resnet34,resnet50,resnet101,resnet152"
DTYPES = ("float32", "bfloat16")
EPOCHS, NUM_IMAGES = 50, 28_709  # Pan's study on FER2013's training split


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list(
    "models", DEPTHS, "Model names or patterns, comma-separated."
  )
  flags.DEFINE_list("batch_sizes", "64", "Global batch sizes, comma-separated.")
  flags.DEFINE_list(
    "dtypes", "float32", "Compute dtypes: float32, bfloat16 or both."
  )
  flags.DEFINE_list("image_sizes", "48", "Image sizes in pixels.")
  flags.DEFINE_list("devices", [], "Numbers of devices (simulated on CPU).")
  flags.DEFINE_enum("channels", "1", ["1", "3"], "Image channels.")
  flags.DEFINE_integer("turns", 5, "Repetitions per case.", lower_bound=1)
  flags.DEFINE_integer("steps", 3, "Steps per repetition.", lower_bound=1)
  reporting.define_output()
  flags.DEFINE_string("dump_hlo", "", "Folder for the HLO programs.")


def main(argv: Sequence[str]) -> None:
  """Measures all cases given by the flags."""
  del argv
  given = flags.FLAGS
  names = reporting.named_models(given.models)
  sizes = reporting.whole_numbers("image_sizes", given.image_sizes)
  batch_sizes = reporting.whole_numbers("batch_sizes", given.batch_sizes)
  dtypes = reporting.chosen("dtypes", given.dtypes, DTYPES)
  devices = [0]
  if given.devices:
    devices = reporting.whole_numbers("devices", given.devices)
  cases = [
    {
      "model": model,
      "batch_size": batch_size,
      "dtype": dtype,
      "image_size": image_size,
      "channels": int(given.channels),
      "devices": count,
      "turns": given.turns,
      "steps": given.steps,
      "dump_hlo": given.dump_hlo,
    }
    for count, dtype, image_size, batch_size, model in itertools.product(
      devices, dtypes, sizes, batch_sizes, names
    )
  ]
  table = reporting.Table(COLUMNS, given.output, "depth_timing")
  started = time.monotonic()
  for i, case in enumerate(cases):
    reporting.progress(
      f"{i + 1} of {len(cases)}: {case['model']}, batch {case['batch_size']},"
      f" {time.monotonic() - started:.0f} s so far ..."
    )
    try:
      row = measure(case)
    except workers.WorkerError as e:
      reporting.skip(f"{case['model']}, batch {case['batch_size']}", e)
      continue
    reporting.progress("")
    table.add([row])
  reporting.progress("")
  for text in study_minutes(table.rows):
    print(text)
  table.finish(picture)


def measure(case: dict[str, Any]) -> Row:
  """Measures a case in a separate process with an empty compilation cache.

  Args:
    case: as for `depth_worker.measure`, without `cache`; `devices` is the
      number of devices, 0 for all.

  Raises:
    WorkerError: the case cannot be measured.
  """
  environment = workers.with_devices(case["devices"])
  with (
    tempfile.TemporaryDirectory(prefix="depth_timing_") as cache,
    workers.ended([]) as started,
  ):
    worker = workers.Worker(Path(depth_worker.__file__), {}, environment)
    started.append(worker)
    row: Row = worker.ask("measure", case=case | {"cache": cache})
  return row | reporting.machine()


def study_minutes(rows: Sequence[Row]) -> list[str]:
  """Returns how long Pan's study takes at each depth, one line per setting."""
  lines = []
  for setting, of in _by_setting(rows).items():
    minutes = ", ".join(f"{row['model']} {_minutes(row):,.1f}" for row in of)
    lines.append(
      f"minutes for {EPOCHS} epochs of FER2013 ({NUM_IMAGES:,} images),"
      f" {setting}: {minutes}"
    )
  return lines


def _minutes(row: Row) -> float:
  return EPOCHS * NUM_IMAGES / row["images_per_second"] / 60


def _by_setting(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """Groups rows by their settings, which differ in the model only."""
  settings: dict[str, list[Row]] = {}
  for row in rows:
    name = (
      f"batch {row['batch_size']}, {row['dtype']}, {row['image_size']} px,"
      f" {row['num_devices']} device{'s' * (row['num_devices'] > 1)}"
    )
    settings.setdefault(name, []).append(row)
  return settings


def _xla(row: Row) -> str:
  counted = row["xla_gflop_per_image"]
  return "-" if counted is None else f"{counted:.3f}"


COLUMNS = (
  Column("model", 15, lambda row: row["model"], left=True),
  Column("batch", 5, lambda row: str(row["batch_size"])),
  Column("dtype", 8, lambda row: row["dtype"]),
  Column("pixels", 6, lambda row: str(row["image_size"])),
  Column("devices", 7, lambda row: str(row["num_devices"])),
  Column("compile", 7, lambda row: f"{row['compile_cold_s']:.1f} s"),
  Column("cached", 6, lambda row: f"{row['compile_cached_s']:.1f} s"),
  Column(
    "step ms",
    22,
    lambda row: "{step_ms:.1f} ({step_ms_low:.1f}-{step_ms_high:.1f})".format(
      **row
    ),
  ),
  Column("images/s", 8, lambda row: f"{row['images_per_second']:,.0f}"),
  Column(
    "inference/s",
    11,
    lambda row: f"{row['inference_images_per_second']:,.0f}",
  ),
  Column("memory GB", 9, lambda row: f"{row['peak_memory_bytes'] / 1e9:.2f}"),
  Column(
    "GFLOP/image (XLA)",
    17,
    lambda row: f"{row['training_gflop_per_image']:.3f} ({_xla(row)})",
  ),
  Column("GFLOP/s", 7, lambda row: f"{row['gflops_per_second']:,.0f}"),
  Column("utilization", 11, lambda row: f"{row['share_of_peak']:.0%}"),
  Column(f"{EPOCHS} epochs", 9, lambda row: f"{_minutes(row):,.0f} min"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws images/s and the utilization of the machine, per model."""
  settings = _by_setting(rows)
  names = list(dict.fromkeys(row["model"] for row in rows))
  figure = Figure(
    figsize=(max(9, 4 + 0.9 * len(names)), 4.5), layout="constrained"
  )
  speed, utilization = figure.subplots(1, 2)
  colors = matplotlib.colormaps["viridis"]
  for i, (setting, of) in enumerate(settings.items()):
    positions = [names.index(row["model"]) for row in of]
    rates = [row["images_per_second"] for row in of]
    style: dict[str, Any] = {
      "color": colors(0.15 + 0.7 * i / max(len(settings) - 1, 1)),
      "label": setting,
      "marker": "o",
      "linestyle": "none",
      "capsize": 3,
    }
    # The slowest repetition has the lowest rate.
    below = [row["step_ms"] / row["step_ms_high"] for row in of]
    above = [row["step_ms"] / row["step_ms_low"] for row in of]
    for axes, heights in (
      (speed, rates),
      (utilization, [100 * row["share_of_peak"] for row in of]),
    ):
      spread = [
        [h * (1 - b) for h, b in zip(heights, below, strict=True)],
        [h * (a - 1) for h, a in zip(heights, above, strict=True)],
      ]
      axes.errorbar(positions, heights, yerr=spread, **style)
      for depths in _families(of):
        axes.plot(
          [positions[j] for j in depths],
          [heights[j] for j in depths],
          color=style["color"],
        )
    if len(settings) == 1:
      for position, rate in zip(positions, rates, strict=True):
        speed.annotate(
          f"{rate:,.0f}",
          (position, rate),
          textcoords="offset points",
          xytext=(7, 5),
        )
  speed.set(title="Training throughput (images/s)", ylim=(0, None))
  utilization.set(
    title="Utilization (% of the matrix-product peak)", ylim=(0, 100)
  )
  for axes in (speed, utilization):
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
  utilization.legend(frameon=False)
  figure.suptitle(
    f"{rows[0]['machine']}, {rows[0]['device']}, jax {rows[0]['jax']},"
    f" {rows[0]['date']}",
    fontsize=9,
  )
  return figure


def _families(rows: Sequence[Row]) -> list[list[int]]:
  """Groups the indices of models that differ in a number, joined by a line."""
  families: dict[str, list[int]] = {}
  for i, row in enumerate(rows):
    families.setdefault(row["model"].rstrip("0123456789"), []).append(i)
  return list(families.values())


if __name__ == "__main__":
  define_flags()
  app.run(main)
