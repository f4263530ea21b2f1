r"""Times the streaming loader on a dataset too large to keep in memory.

python benchmarks/streaming.py [--examples=500000] [--model=resnet18] \
  [--batch_size=64] [--turns=9] [--output=benchmarks/out]

Generates a dataset of noise (48 x 48, gray; 1.2 GB of array_record files for
500,000 images) in a temporary folder, which is removed at the end. First the
streaming loader alone is run for thousands of steps: its images/s, and the
resident memory of the process along the way. Pages of the files that the
kernel's page cache holds do not count. Then training with the streaming and
with the in-memory loader are timed interleaved, in one process.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import memory
import numpy as np
import reporting
import tensorflow_datasets as tfds
import timing
from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from reporting import Column, Row

from fer_jax import recipes
from fer_jax.cli import app
from fer_jax.data.datasets import registry
from fer_jax.data.datasets.builder import Example, FaceBuilder
from fer_jax.training.compiled_steps import compile_programs
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.runtime import startup
from fer_jax.training.runtime.compilation import ParallelCompiler
from fer_jax.training.train_batches import TrainBatches

MEMORY_SAMPLES = 10


class Noise(FaceBuilder):
  """Random images of seven classes."""

  VERSION = tfds.core.Version("1.0.0")
  classes = tuple("abcdefg")
  default_options = {"num_examples": 500_000}

  def read_examples(self) -> Mapping[str, Iterator[Example]]:
    """Draws the splits."""
    return {
      "train": _noise(self.options["num_examples"]),
      "validation": _noise(256),
    }


def _noise(count: int) -> Iterator[Example]:
  rng = np.random.default_rng(count)
  for start in range(0, count, 1024):
    images = rng.integers(256, size=(1024, 48, 48, 1), dtype=np.uint8)
    for row in range(start, min(start + 1024, count)):
      yield images[row - start], row % 7, row


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "resnet18", "Model that is trained.")
  flags.DEFINE_integer("batch_size", 64, "Batch size.", lower_bound=1)
  flags.DEFINE_integer("examples", 500_000, "Images.", lower_bound=1024)
  flags.DEFINE_integer(
    "steps", 5000, "Steps of the loader alone.", lower_bound=MEMORY_SAMPLES
  )
  flags.DEFINE_integer(
    "turns", 9, "Repetitions of training; 0: none.", lower_bound=0
  )
  flags.DEFINE_integer("calls", 6, "Steps per repetition.", lower_bound=1)
  flags.DEFINE_string(
    "data_dir", "", "Folder of the prepared dataset; a temporary one if unset."
  )
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  reporting.named_models([given.model])
  startup.start("off")
  table = reporting.Table(COLUMNS, given.output, "streaming")
  with tempfile.TemporaryDirectory(prefix="streaming_") as folder:
    config = noise_config(
      given.model, given.batch_size, given.examples, given.data_dir or folder
    )
    table.add(loader_alone(config, given.steps))
    if given.turns:
      table.add(training(config, given.turns, given.calls))
  table.finish(picture)


def noise_config(
  model: str, batch_size: int, num_examples: int, data_dir: str
) -> ConfigDict:
  """Returns a configuration that trains on noise.

  Args:
    model: name of the model.
    batch_size: images per step.
    num_examples: images of the training split.
    data_dir: where the dataset is prepared, unless it is.
  """
  registry.DATASETS["noise"] = f"{__name__}:Noise"
  dataset = {
    "name": "noise",
    "data_dir": data_dir,
    "num_examples": num_examples,
  }
  return recipes.get_config(
    "resnet18",
    {
      "dataset": dataset,
      "model": {"name": model},
      "batch_size": batch_size,
      "parallel": "jit",
      "steps_per_call": 1,
    },
  )


def loader_alone(config: ConfigDict, num_steps: int) -> list[Row]:
  """Reads batches as fast as they come, and notes the memory."""
  with config.unlocked():
    config.data_loader = "streaming"
  batches = TrainBatches(create_experiment(config))
  every = num_steps // MEMORY_SAMPLES
  rows: list[Row] = []
  for _ in range(MEMORY_SAMPLES):
    started = time.perf_counter()
    for _ in range(every):
      jax.block_until_ready(batches.take(1))
    seconds = [(time.perf_counter() - started) / every]
    step = every * (len(rows) + 1)
    rows.append(
      _row(config, f"loader alone, step {step:,}", timing.Timing.of(seconds))
    )
  return rows


def training(config: ConfigDict, turns: int, calls: int) -> list[Row]:
  """Times training with both loaders, interleaved."""
  steps = {}
  for loader in ("streaming", "in_memory"):
    with config.unlocked():
      config.data_loader = loader
    steps[f"training, {loader}"] = _training_step(config)
  timings = timing.interleave(steps, num_turns=turns, calls_per_turn=calls)
  return [_row(config, name, t) for name, t in timings.items()]


def _training_step(config: ConfigDict) -> Callable[[], Any]:
  """Returns a function that trains the next step of a run."""
  experiment = create_experiment(config)
  batches = TrainBatches(experiment)
  state = experiment.place(experiment.init_state(), 0)
  metrics = experiment.parallel.replicate(Metrics.zeros())
  with ParallelCompiler(reporting.progress) as compiler:
    finished = compile_programs(experiment, 0, state, compiler)
    compiler.wait()
  programs = finished()
  reporting.progress("")

  def step() -> Any:
    nonlocal state, metrics
    state, metrics = programs.train_step(state, metrics, batches.take(1))
    return metrics

  return step


def _row(config: ConfigDict, what: str, measured: timing.Timing) -> Row:
  return {
    "what": what,
    "model": config.model.name,
    "batch_size": config.batch_size,
    "examples": config.dataset.num_examples,
    "ms": round(1e3 * measured.median, 4),
    "ms_low": round(1e3 * measured.low, 4),
    "ms_high": round(1e3 * measured.high, 4),
    "num_turns": measured.num_turns,
    "images_per_second": round(config.batch_size / measured.median, 1),
    "resident_mb": round(memory.anonymous() / 1e6, 1),
    **timing.environment(),
    **reporting.machine("grain", "array-record"),
  }


COLUMNS = (
  Column("what", 27, lambda row: row["what"], left=True),
  Column("batch", 5, lambda row: str(row["batch_size"])),
  Column(
    "ms/batch",
    26,
    lambda row: "{ms:,.2f} ({ms_low:,.2f}-{ms_high:,.2f})".format(**row),
  ),
  Column("images/s", 11, lambda row: f"{row['images_per_second']:,.0f}"),
  Column("memory MB", 10, lambda row: f"{row['resident_mb']:,.0f}"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the memory over the steps, and the two trainings."""
  alone = [row for row in rows if row["what"].startswith("loader")]
  trained = [row for row in rows if row["what"].startswith("training")]
  figure = Figure(figsize=(9, 3.5), layout="constrained")
  left, right = figure.subplots(1, 2)
  left.plot(
    [int(row["what"].split()[-1].replace(",", "")) for row in alone],
    [row["resident_mb"] for row in alone],
    marker="o",
  )
  left.set_ylim(0, 1.1 * max(row["resident_mb"] for row in alone))
  left.set_xlabel("steps of the streaming loader")
  left.set_ylabel("memory in MB, without page cache")
  right.barh(
    [row["what"].split()[-1] for row in trained],
    [row["images_per_second"] for row in trained],
  )
  right.set_xlabel(f"images/s, training {rows[0]['model']}")
  figure.suptitle(rows[0]["machine"], fontsize=9)
  return figure


if __name__ == "__main__":
  define_flags()
  app.run(main)
