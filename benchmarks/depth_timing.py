r"""Times training and inference of every depth.

python benchmarks/depth_timing.py [--models=resnet18,mobilenet*] \
  [--batch_sizes=64] [--dtypes=float32] [--image_sizes=48] \
  [--output=benchmarks/results] [--dump_hlo=DIR]

Each row is measured in a process of its own: the whole training step of
fer_jax.train (forward, backward, Adam, batch taken from the resident data),
its compilation with an empty cache and with a full one, and inference.
"""

import csv
import fnmatch
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
from absl import flags
from matplotlib.figure import Figure

from fer_jax import errors, models

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
  names = _named(given.models)
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
  print(_line(_HEADER))
  for i, case in enumerate(cases):
    started = time.monotonic()
    _progress(f"{i + 1} of {len(cases)}: {case['model']} ...")
    row = _run(case)
    rows.append(row)
    _progress("")
    print(_line(_cells(row)), flush=True)
    _progress(f"took {time.monotonic() - started:.0f} s")
  _progress("")
  _write(rows, Path(given.output))


def _named(patterns: Sequence[str]) -> list[str]:
  """The models that names and patterns stand for, in the order given."""
  names: list[str] = []
  for pattern in patterns:
    found = fnmatch.filter(models.available(), pattern)
    if not found:
      errors.choose("model", pattern, models.available())
    names += [name for name in found if name not in names]
  return names


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


_HEADER = (
  "model",
  "batch",
  "dtype",
  "pixels",
  "compile",
  "cached",
  "step ms",
  "images/s",
  "inference/s",
  "memory GB",
  "GFLOP/s",
  "of peak",
  f"min/{EPOCHS} epochs",
)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  return (
    row["model"],
    str(row["batch_size"]),
    row["dtype"],
    str(row["image_size"]),
    f"{row['compile_cold_s']:.1f} s",
    f"{row['compile_cached_s']:.1f} s",
    "{step_ms:.1f} ({step_ms_low:.1f}-{step_ms_high:.1f})".format(**row),
    f"{row['images_per_second']:,.0f}",
    f"{row['inference_images_per_second']:,.0f}",
    f"{row['peak_memory_bytes'] / 1e9:.2f}",
    f"{row['gflops_per_second']:,.0f}",
    f"{row['share_of_peak']:.0%}",
    f"{EPOCHS * ROWS / row['images_per_second'] / 60:,.1f}",
  )


def _line(cells: Sequence[str]) -> str:
  widths = (16, 5, 8, 6, 8, 7, 22, 8, 11, 9, 8, 7, 13)
  return "  ".join(
    cell.ljust(width) if i == 0 else cell.rjust(width)
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
  )


def _progress(text: str) -> None:
  if sys.stderr.isatty():
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _write(rows: list[dict[str, Any]], folder: Path) -> None:
  """Writes the table, and a picture of it."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "depth_timing.csv", "w", newline="") as f:
      writer = csv.DictWriter(f, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)
    picture(rows).savefig(folder / "depth_timing.png", dpi=150)
  except OSError as e:
    raise errors.UserError(
      f"cannot write --output={folder}: {e.strerror or e}; give another folder"
    ) from e
  print(f"wrote {folder}/depth_timing.csv and depth_timing.png")


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
