r"""Measures the overhead of the training loop on the host.

python benchmarks/host_overhead.py [--steps=2000] [--turns=5] \
  [--steps_per_call=1,50] [--batch_size=1] [--output=benchmarks/out]

The training loop, with data in memory, logging and progress on a (pseudo)
terminal, trains a network of a single dense layer, whose step takes almost no
time. The overhead is the difference to calling the compiled step alone, with
the same batch. Each repetition is a run of two epochs, of which the second is
timed: the first compiles.
"""

import contextlib
import functools
import os
import pty
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import host_overhead_report
import jax
import jax.numpy as jnp
import numpy as np
import reporting
from absl import flags
from ml_collections import ConfigDict
from reporting import Row

from fer_jax import errors
from fer_jax.cli import app
from fer_jax.configs import default
from fer_jax.models import registry
from fer_jax.training import compiled_steps, train_loop
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.runtime import startup

MODEL = "one_layer"


class OneLayer(nn.Module):
  """A dense layer on the images' mean rows."""

  num_classes: int
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Returns logits."""
    x = jnp.mean(x, axis=(1, 3))
    return nn.Dense(self.num_classes, name="fc")(x)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_integer("steps", 2000, "Steps per epoch.", lower_bound=2)
  flags.DEFINE_integer("batch_size", 1, "Images per step.", lower_bound=1)
  flags.DEFINE_list(
    "steps_per_call", "1,50", "Steps per compiled call, comma-separated."
  )
  flags.DEFINE_integer("turns", 5, "Repetitions.", lower_bound=1)
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  per_call = reporting.whole_numbers("steps_per_call", given.steps_per_call)
  table = reporting.Table(
    host_overhead_report.COLUMNS, given.output, "host_overhead"
  )
  with tempfile.TemporaryDirectory(prefix="host_overhead_") as folder:
    startup.start(folder)  # Repetitions compile the same programs.
    rows = measure(per_call, given.steps, given.batch_size, given.turns)
  table.add(rows)
  table.finish(host_overhead_report.picture)


def measure(
  per_call: Sequence[int], steps: int, batch_size: int, turns: int
) -> list[Row]:
  """Times the loop and the compiled call alone, interleaved.

  Args:
    per_call: numbers of steps per compiled call.
    steps: steps per epoch; a multiple of each of `per_call`.
    batch_size: images per step.
    turns: number of repetitions.

  Returns:
    One row for each of `per_call`.

  Raises:
    UserError: `steps` is not such a multiple.
  """
  for count in per_call:
    if steps % count:
      raise errors.UserError(
        f"steps={steps} must be a multiple of steps_per_call={count}"
      )
  seconds: dict[tuple[int, str], list[float]] = {
    (count, what): [] for count in per_call for what in ("loop", "bare")
  }
  with (
    tempfile.TemporaryDirectory(prefix="host_overhead_") as folder,
    mock.patch.dict(registry.MODELS, {MODEL: OneLayer}),
  ):
    bare = {}
    for turn in range(turns):
      for count in per_call:
        reporting.progress(
          f"repetition {turn + 1} of {turns}, {count} steps per call ..."
        )
        config = _config(folder, steps, batch_size, count)
        took = _loop_seconds(config, Path(folder) / f"run{turn}_{count}")
        seconds[count, "loop"].append(took / steps)
        if count not in bare:
          bare[count] = _bare_call(config)
        seconds[count, "bare"].append(bare[count](steps // count) / steps)
  reporting.progress("")
  return [
    host_overhead_report.row(count, steps, batch_size, seconds)
    for count in per_call
  ]


def _config(
  folder: str, steps: int, batch_size: int, per_call: int
) -> ConfigDict:
  config = default.get_config()
  config.model.name = MODEL
  config.dataset.name = "synthetic_faces"
  config.dataset.data_dir = f"{folder}/prepared"
  config.dataset.num_train = steps * batch_size
  config.dataset.num_validation = config.dataset.num_test = 7
  config.batch_size = batch_size
  config.eval_batch_size = 7
  config.num_epochs = 2
  config.parallel = "jit"
  config.steps_per_call = per_call
  return config.lock()


def _loop_seconds(config: ConfigDict, workdir: Path) -> float:
  """Returns the seconds of the second epoch's steps in the training loop."""
  epochs: list[float] = []
  train_epoch = train_loop.train_epoch

  @functools.wraps(train_epoch)
  def timed(*args: Any) -> Any:
    started = time.perf_counter()
    state = train_epoch(*args)  # Waits for the metrics of the last step.
    epochs.append(time.perf_counter() - started)
    return state

  with mock.patch.object(train_loop, "train_epoch", timed), _terminal():
    train_loop.train_and_evaluate(config, workdir)
  return epochs[-1]


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
  """Replaces stderr with a pseudo-terminal whose output is discarded."""
  ours, theirs = pty.openpty()

  def drain() -> None:
    with contextlib.suppress(OSError):  # The other end was closed.
      while os.read(ours, 65536):
        pass

  reader = threading.Thread(target=drain, daemon=True)
  reader.start()
  with open(theirs, "w") as stderr, mock.patch.object(sys, "stderr", stderr):
    yield
  reader.join(timeout=5)
  os.close(ours)


def _bare_call(config: ConfigDict) -> Callable[[int], float]:
  """Returns a function that times compiled calls with the same batch.

  The call is compiled, and has been called once.
  """
  parts = create_experiment(config)
  parallel, per_call = parts.parallel, config.steps_per_call
  data, inputs = parts.train_data, parts.device_inputs
  stacked = per_call > 1
  make = (
    compiled_steps.make_train_steps
    if stacked
    else compiled_steps.make_train_step
  )
  call = make(parallel, parts.train_step(epoch=0))
  rows = np.arange(config.batch_size, dtype=np.int32)
  rows = np.tile(rows, (per_call, 1)) if stacked else rows
  batch = parallel.shard({"index": rows}, stacked=stacked)
  state = parts.place(parts.init_state(), epoch=0)
  metrics = parallel.replicate(Metrics.zeros())
  state, metrics = call(state, metrics, data, batch, inputs)

  def timed(calls: int) -> float:
    nonlocal state, metrics
    jax.block_until_ready(metrics)
    started = time.perf_counter()
    for _ in range(calls):
      state, metrics = call(state, metrics, data, batch, inputs)
    jax.block_until_ready((state, metrics))
    return time.perf_counter() - started

  return timed


if __name__ == "__main__":
  define_flags()
  app.run(main)
