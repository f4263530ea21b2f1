r"""Times training and inference of every depth.

python benchmarks/depth_timing.py [--models=resnet18,mobilenet*] \
  [--batch_sizes=64] [--dtypes=float32] [--image_sizes=48] \
  [--output=benchmarks/results] [--dump_hlo=DIR]

Each row is measured in a process of its own: the whole training step of
fer_jax.train (forward, backward, Adam, batch taken from the resident data),
its compilation with an empty cache and with a full one, and inference.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import reporting
from absl import flags
from matplotlib.figure import Figure
from reporting import Column

from fer_jax import errors

DEPTHS = "resnet18,resnet34,resnet50,resnet101,resnet152"
EPOCHS, ROWS = 50, 28_709  # Pan's study: epochs, and FER2013's training rows


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("models", DEPTHS, "Names or patterns of models.")
  flags.DEFINE_list("batch_sizes", "64", "Over all devices.")
  flags.DEFINE_list("dtypes", "float32", "float32, bfloat16 or both.")
  flags.DEFINE_list("image_sizes", "48", "Pixels.")
  flags.DEFINE_integer("channels", 1, "1 or 3.")
  flags.DEFINE_integer("turns", 5, "Measurements of each row.", lower_bound=3)
  flags.DEFINE_integer("steps", 3, "Steps of each turn.", lower_bound=1)
  flags.DEFINE_string("output", "benchmarks/results", "Where tables go.")
  flags.DEFINE_string("dump_hlo", "", "A folder for XLA's programs.")
  flags.DEFINE_string("worker", "", "Internal: the case to measure, as JSON.")


def main(argv: Sequence[str]) -> None:
  """Measures all cases that the flags name."""
  del argv
  given = flags.FLAGS
  if given.worker:
    import depth_worker  # JAX is set up by the case.

    print(json.dumps(depth_worker.measure(json.loads(given.worker))))
    return
  names = reporting.named_models(given.models)
  cases = [
    {
      "model": model,
      "batch_size": int(batch_size),
      "dtype": dtype,
      "image_size": int(image_size),
      "channels": given.channels,
      "turns": given.turns,
      "steps": given.steps,
      "dump_hlo": given.dump_hlo,
    }
    for dtype, image_size, batch_size, model in itertools.product(
      given.dtypes, given.image_sizes, given.batch_sizes, names
    )
  ]
  rows = []
  print(reporting.header(_COLUMNS))
  for i, case in enumerate(cases):
    started = time.monotonic()
    reporting.progress(f"{i + 1} of {len(cases)}: {case['model']} ...")
    row = _run(case)
    rows.append(row)
    reporting.progress("")
    print(reporting.line(_COLUMNS, row), flush=True)
    reporting.progress(f"took {time.monotonic() - started:.0f} s")
  reporting.progress("")
  reporting.write(rows, Path(given.output), "depth_timing", picture(rows))


def _run(case: dict[str, Any]) -> dict[str, Any]:
  """Measures a case in a process of its own, with a cache of its own."""
  with tempfile.TemporaryDirectory(prefix="depth_timing_") as cache:
    command = [
      sys.executable,
      __file__,
      f"--worker={json.dumps(case | {'cache': cache})}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode:
    reason = done.stderr.strip().splitlines() or ["no output"]
    raise errors.UserError(
      f"{case['model']} could not be measured: {reason[-1]}"
    )
  return json.loads(done.stdout.splitlines()[-1])


_COLUMNS = (
  Column("model", 16, lambda row: row["model"], left=True),
  Column("batch", 5, lambda row: str(row["batch_size"])),
  Column("dtype", 8, lambda row: row["dtype"]),
  Column("pixels", 6, lambda row: str(row["image_size"])),
  Column("compile", 8, lambda row: f"{row['compile_cold_s']:.1f} s"),
  Column("cached", 7, lambda row: f"{row['compile_cached_s']:.1f} s"),
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
  Column("GFLOP/s", 8, lambda row: f"{row['gflops_per_second']:,.0f}"),
  Column("of peak", 7, lambda row: f"{row['share_of_peak']:.0%}"),
  Column(
    f"min/{EPOCHS} epochs",
    13,
    lambda row: f"{EPOCHS * ROWS / row['images_per_second'] / 60:,.1f}",
  ),
)


def picture(rows: list[dict[str, Any]]) -> Figure:
  """Draws images/s and the share of the machine's peak, model by model."""
  figure = Figure(figsize=(9, 4.5), layout="constrained")
  speed, share = figure.subplots(1, 2)
  names = list(dict.fromkeys(row["model"] for row in rows))
  cases = list(
    dict.fromkeys(
      (row["batch_size"], row["dtype"], row["image_size"]) for row in rows
    )
  )
  colours = matplotlib.colormaps["viridis"]
  for i, case in enumerate(cases):
    batch_size, dtype, image_size = case
    chosen = [
      row
      for row in rows
      if (row["batch_size"], row["dtype"], row["image_size"]) == case
    ]
    places = [names.index(row["model"]) for row in chosen]
    style: dict[str, Any] = {
      "marker": "o",
      "color": colours(0.15 + 0.7 * i / max(len(cases) - 1, 1)),
      "label": f"batch {batch_size}, {dtype}, {image_size} px",
    }
    rates = [row["images_per_second"] for row in chosen]
    speed.plot(places, rates, **style)
    if len(cases) == 1:
      for place, rate in zip(places, rates, strict=True):
        speed.annotate(
          f"{rate:,.0f}",
          (place, rate),
          textcoords="offset points",
          xytext=(0, 8),
          ha="center",
        )
    share.plot(places, [100 * row["share_of_peak"] for row in chosen], **style)
  speed.set(title="Training, images per second", ylim=(0, None))
  share.set(title="Share of the matrix-product peak, %", ylim=(0, 100))
  speed.margins(y=0.15)
  for axes in (speed, share):
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
  share.legend(frameon=False)
  figure.suptitle(f"{rows[0]['device']}, jax {rows[0]['jax']}")
  return figure


if __name__ == "__main__":
  define_flags()
  errors.run(main)
