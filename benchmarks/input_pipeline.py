r"""Times the input pipeline relative to the training step that consumes it.

python benchmarks/input_pipeline.py [--model=resnet18] [--batch_sizes=64,256] \
  [--dataset=synthetic_faces] [--turns=5] [--output=benchmarks/out]

Timed interleaved: reading records one by one and in batches, the streaming
loader (grain's threads read), the in-memory loader (indices; the gather is on
the device), each augmentation on the device, and the training step without
augmentation. The streaming loader is timed after grain's prefetched batches are
used up. The accelerator waits if loading a batch takes longer than a step,
since steps are dispatched ahead: `waits` is that fraction of the time. An
augmentation is part of the step: for it, `waits` is its fraction of the step.
"""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import depth_worker
import jax
import jax.numpy as jnp
import numpy as np
import reporting
import timing
from absl import flags
from matplotlib.figure import Figure
from reporting import Column, Row

from fer_jax.cli import app
from fer_jax.data import pipeline
from fer_jax.data.datasets import registry
from fer_jax.data.splits import Split
from fer_jax.data.transforms import augmentation
from fer_jax.training.runtime import startup

TARGET = 0.02  # fraction of the time
# Batches of the streaming loader that are discarded before each repetition:
# grain has prefetched some during the other measurements.
READ_AHEAD = 16
# One augmentation at a time, as strong as in the recipes.
AUGMENTATIONS: dict[str, Any] = {
  "flip": True,
  "shift": 0.1,
  "crop_padding": 4,
  "rotation": 10.0,
  "zoom": 0.1,
  "resized_crop": 0.6,
  "brightness": 0.2,
  "contrast": 0.2,
  "blur": 1.0,
  "random_erasing": 0.5,
}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "resnet18", "Model that consumes the batches.")
  flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Compute dtype of the model."
  )
  flags.DEFINE_list("batch_sizes", "64,256", "Batch sizes, comma-separated.")
  flags.DEFINE_string("dataset", "synthetic_faces", "Dataset.")
  flags.DEFINE_string("manual_dir", "", "Folder of the dataset's release.")
  flags.DEFINE_string(
    "data_dir", "", "Folder of the prepared dataset; a temporary one if unset."
  )
  flags.DEFINE_integer(
    "rows", 4096, "Number of synthetic faces.", lower_bound=1
  )
  flags.DEFINE_integer("turns", 5, "Repetitions.", lower_bound=1)
  flags.DEFINE_integer("calls", 5, "Calls per repetition.", lower_bound=1)
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  sizes = reporting.whole_numbers("batch_sizes", given.batch_sizes)
  model = reporting.named_models([given.model])[0]
  startup.start("off")
  table = reporting.Table(COLUMNS, given.output, "input_pipeline")
  with tempfile.TemporaryDirectory(prefix="input_pipeline_") as folder:
    reporting.progress("opening the dataset ...")
    split = open_split(
      given.dataset,
      given.manual_dir,
      given.data_dir or folder,
      max(given.rows, *sizes),
    )
    for size in sizes:
      reporting.progress(f"batches of {size} ...")
      rows = measure(split, model, given.dtype, size, given.turns, given.calls)
      reporting.progress("")
      table.add(rows)
  table.finish(picture)


def open_split(
  dataset: str, manual_dir: str, data_dir: str, rows: int
) -> Split:
  """Opens the training split of a dataset, prepared if necessary."""
  options: dict[str, Any] = {}
  if dataset == "synthetic_faces":
    options = {"num_train": rows, "num_validation": 7, "num_test": 7}
  opened = registry.load(
    dataset, manual_dir=manual_dir, data_dir=data_dir, **options
  )
  return opened.split("train")


def measure(
  split: Split, model: str, dtype: str, size: int, turns: int, calls: int
) -> list[Row]:
  """Times everything between the files and the model.

  Args:
    split: split to read.
    model: model whose training step consumes the batches.
    dtype: dtype of its compute.
    size: batch size.
    turns: number of repetitions.
    calls: calls per repetition.

  Returns:
    One row per loader and augmentation, and one for the step.
  """
  programs: dict[str, Callable[[], Any]] = {
    "training step": _step(model, dtype, size),
    **_feeds(split, size),
    **_augmentations(split, size),
  }

  def drain() -> None:
    for _ in range(READ_AHEAD):
      programs["streaming loader"]()

  timings = timing.interleave(
    programs,
    num_turns=turns,
    calls_per_turn=calls,
    warm_up=2,
    before={"streaming loader": drain},
  )
  step = timings["training step"].median
  rows = []
  for name, t in timings.items():
    share = max(0.0, 1 - step / t.median)
    if name.startswith("augment"):
      share = t.median / (step + t.median)
    wanted = name.endswith("loader") or name.startswith("augment")
    rows.append(
      {
        "what": name,
        "batch_size": size,
        "model": model,
        "dtype": dtype,
        "ms": round(1e3 * t.median, 4),
        "ms_low": round(1e3 * t.low, 4),
        "ms_high": round(1e3 * t.high, 4),
        "num_turns": t.num_turns,
        "images_per_second": round(size / t.median, 1),
        "times_consumed": round(step / t.median, 3),
        "share_waited": round(share, 5),
        "met": share < TARGET if wanted else None,
        **timing.environment(),
        **reporting.machine("grain", "array-record"),
      }
    )
  return rows


def _step(model: str, dtype: str, size: int) -> Callable[[], Any]:
  """Returns one training step, on one device."""
  run = depth_worker.Run(
    {
      "model": model,
      "batch_size": size,
      "dtype": dtype,
      "image_size": 48,
      "channels": 1,
      "parallel": "jit",
      "steps_per_call": 1,
    }
  )
  return run.step


def _feeds(split: Split, size: int) -> dict[str, Callable[[], Any]]:
  """Returns functions that load the next batch."""
  rng = np.random.default_rng(0)

  def rows() -> np.ndarray:
    return rng.integers(len(split), size=size)

  def batches(feed: str) -> Iterator[Any]:
    for seed in itertools.count():  # An order has a limited number of epochs.
      order = pipeline.BatchOrder(len(split), size, 1000, seed)
      yield from pipeline.training_batches(split, order, feed)

  stream, resident = batches("streaming"), batches("in_memory")
  images = jax.device_put(split.arrays()["image"])
  gather = jax.jit(lambda images, index: images[index])
  return {
    "read one by one": lambda: [split.read(row[None]) for row in rows()],
    "read by batch": lambda: split.read(rows()),
    "streaming loader": lambda: jax.device_put(next(stream)),
    "in-memory loader": lambda: gather(images, next(resident)["index"]),
  }


def _augmentations(split: Split, size: int) -> dict[str, Callable[[], Any]]:
  """Returns each augmentation alone, on the device."""
  images = jnp.asarray(split.read(np.arange(size))["image"], jnp.float32) / 255
  index, key = jnp.arange(size), jax.random.key(0)

  def program(name: str) -> Callable[[], Any]:
    options = augmentation.Augmentation(**{name: AUGMENTATIONS[name]})
    compiled = jax.jit(lambda k, x, i: augmentation.augment(k, x, i, options))
    return lambda: compiled(key, images, index)

  return {f"augment: {name}": program(name) for name in AUGMENTATIONS}


COLUMNS = (
  Column("what", 21, lambda row: row["what"], left=True),
  Column("batch", 5, lambda row: str(row["batch_size"])),
  Column(
    "ms/batch",
    26,
    lambda row: "{ms:,.2f} ({ms_low:,.2f}-{ms_high:,.2f})".format(**row),
  ),
  Column("images/s", 11, lambda row: f"{row['images_per_second']:,.0f}"),
  Column("x model", 8, lambda row: f"{row['times_consumed']:,.1f}"),
  Column(
    "waits",
    7,
    lambda row: f"{row['share_waited']:.1%}",
  ),
  Column(
    f"< {TARGET:.0%}",
    5,
    lambda row: {True: "yes", False: "no", None: "-"}[row["met"]],
  ),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the images/s of all rows, and of the model as a line."""
  sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
  figure = Figure(figsize=(4.5 * len(sizes) + 1, 5), layout="constrained")
  panels = figure.subplots(1, len(sizes), squeeze=False)[0]
  for axes, size in zip(panels, sizes, strict=True):
    of = [row for row in rows if row["batch_size"] == size]
    positions = range(len(of))
    axes.barh(positions, [r["images_per_second"] for r in of], color="#1b7f5c")
    axes.axvline(of[0]["images_per_second"], color="#c2571a")
    axes.set_xscale("log")
    axes.set_yticks(positions, [row["what"] for row in of], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("images per second")
    axes.set_title(
      f"batch size {size}; line: training step of {of[0]['model']}", fontsize=9
    )
    axes.spines[["top", "right"]].set_visible(False)
  figure.suptitle(rows[0]["machine"], fontsize=9)
  return figure


if __name__ == "__main__":
  define_flags()
  app.run(main)
