r"""Times runs trained together, by one vmapped step, against one by one.

python benchmarks/together_timing.py [--model=leaky_cnn] [--runs=1,2,4,8] \
  [--batch_size=32] [--turns=7] [--lowering=gathered] \
  [--output=benchmarks/results]

What is timed is the training step of fer_jax.train, on random images that lie
on the device. All numbers of runs, together and one by one, are measured in
turns; compilation stands apart, without a cache. Under vmap, XLA's convolution
is one with a group for each run: --lowering says how else to compute it there.
"""

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
from absl import flags

from fer_jax import command, errors, models
from fer_jax.configs import default
from fer_jax.models import lowerings, ops
from fer_jax.training import compilation, parallel, schedules, setup
from fer_jax.training.metrics import Sums
from fer_jax.training.state import Tree
from fer_jax.training.step import RunInputs, Steps

NUM_CLASSES = 7
LOWERINGS = {
  name: getattr(lowerings, name) for name in ("native", "shifted", "gathered")
}
NUM_ROWS = 1024  # images on the device


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "leaky_cnn", "Which.")
  flags.DEFINE_list("runs", ["1", "2", "4", "8"], "How many at once.")
  flags.DEFINE_integer("batch_size", 32, "Of each run.", lower_bound=1)
  flags.DEFINE_string("dtype", "float32", "float32 or bfloat16.")
  flags.DEFINE_integer("image_size", 48, "Pixels.", lower_bound=1)
  flags.DEFINE_integer("turns", 7, "Measurements of each.", lower_bound=3)
  flags.DEFINE_integer("calls", 3, "Calls a measurement.", lower_bound=1)
  flags.DEFINE_enum(
    "lowering", None, list(LOWERINGS), "Of convolutions together; as alone."
  )
  flags.DEFINE_string("output", "benchmarks/results", "Where the table goes.")


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  command.quieten_libraries()
  compilation.use_cache("off")
  spread, steps = _steps()
  cases = {
    (number, together): _Runs(spread, steps, number, together)
    for number in _numbers(given.runs)
    for together in (True, False)
  }
  compiled = {
    (number, together): _compile_seconds(
      case, given.lowering if together else None
    )
    for (number, together), case in cases.items()
  }
  timings = timing.interleave(
    {str(key): case.step for key, case in cases.items()},
    num_turns=given.turns,
    calls_per_turn=given.calls,
  )
  per_call = setup.steps_per_call(steps.config)
  rows = []
  for (number, together), seconds in compiled.items():
    of = timings[str((number, together))]
    images = number * per_call * given.batch_size
    rows.append(
      {
        "model": given.model,
        "runs": number,
        "how": "together" if together else "one by one",
        "batch_size": given.batch_size,
        "dtype": given.dtype,
        "image_size": given.image_size,
        "steps_per_call": per_call,
        "lowering": (together and given.lowering) or "default",
        **timing.environment(),
        # One by one, the first number of runs compiles for all.
        "compile_s": round(seconds, 2),
        "num_turns": of.num_turns,
        "images_per_second": round(images / of.median, 1),
        "images_per_second_low": round(images / of.high, 1),
        "images_per_second_high": round(images / of.low, 1),
      }
    )
  _show(rows)
  _write(rows, Path(given.output))


def _numbers(given: Sequence[str]) -> list[int]:
  try:
    numbers = [int(number) for number in given]
  except ValueError:
    numbers = [0]
  if min(numbers, default=0) < 1:
    raise errors.UserError(
      f"--runs={','.join(given)} must be numbers of at least 1, by commas"
    )
  return numbers


def _steps() -> tuple[parallel.Spread, Steps]:
  """The steps of the model that the flags name."""
  given = flags.FLAGS
  config = default.get_config()
  config.model.name = given.model
  config.dtype = given.dtype
  config.input.image_size = given.image_size
  model = models.create(given.model, NUM_CLASSES, dtype=jnp.dtype(given.dtype))
  return parallel.Spread("jit"), Steps(config.lock(), model, NUM_CLASSES)


class _Runs:
  """Some runs of other seeds and rates, stepped together or one by one."""

  def __init__(
    self, spread: parallel.Spread, steps: Steps, number: int, together: bool
  ):
    given = flags.FLAGS
    per_call = setup.steps_per_call(steps.config)
    shape = (given.image_size, given.image_size, 1)
    rng = np.random.default_rng(0)
    self._data = spread.replicate(
      {
        "image": rng.integers(256, size=(NUM_ROWS, *shape), dtype=np.uint8),
        "target": rng.integers(NUM_CLASSES, size=NUM_ROWS, dtype=np.int32),
      }
    )
    init = parallel.init_call(steps, shape)
    runs: list[tuple[Tree, ...]] = []
    for run in range(number):
      key, rate = jax.random.key(run), 1e-3 / (run + 1)
      schedule = schedules.create(steps.config.schedule, rate, 100, 1)
      inputs = RunInputs(key, schedule, jnp.float32(0))
      size = (per_call, given.batch_size)
      index = rng.integers(NUM_ROWS, size=size, dtype=np.int32)
      batch = {"index": index if per_call > 1 else index[0]}
      runs.append((init(key, inputs), Sums.zeros(), batch, inputs))
    # One entry a call: of all runs, or of each.
    self._runs = [_stacked(runs)] if together else runs
    self._call = parallel.training_call(spread, steps, per_call > 1, together)

  def step(self) -> Any:
    """Trains all runs by one call's steps."""
    for i, (state, sums, batch, inputs) in enumerate(self._runs):
      state, sums = self._call(state, sums, self._data, batch, inputs)
      self._runs[i] = (state, sums, batch, inputs)
    return [sums for _, sums, _, _ in self._runs]


def _stacked(runs: list[tuple[Tree, ...]]) -> tuple[Tree, ...]:
  """The trees of all runs as one each."""
  states, sums, batches, inputs = zip(*runs, strict=True)
  batch = jax.tree.map(lambda *x: np.stack(x), *batches)
  stack = parallel.stack
  return stack(states), stack(sums), batch, stack(inputs)


def _compile_seconds(case: _Runs, lowering: str | None) -> float:
  """Compiles, by a first call."""
  with contextlib.ExitStack() as stack:
    if lowering:
      stack.enter_context(ops.use(ops.Rule.all(LOWERINGS[lowering])))
    times = compilation.CompileTimes()
    jax.block_until_ready(case.step())
  return times.spent


def _show(rows: list[dict[str, Any]]) -> None:
  """Prints the table, and how much faster together is."""
  first = rows[0]
  print(
    f"{first['model']}, batch {first['batch_size']} a run, {first['dtype']},"
    f" {first['device']}, jax {first['jax']}, {first['num_turns']} turns"
  )
  print("runs  how         compile  images/s of all (low-high)       times")
  for row in rows:
    (alone,) = [
      other["images_per_second"]
      for other in rows
      if other["runs"] == row["runs"] and other["how"] == "one by one"
    ]
    spread = "{images_per_second_low:,.0f}-{images_per_second_high:,.0f}"
    print(
      f"{row['runs']:4}  {row['how']:10}  {row['compile_s']:5.1f} s"
      f"  {row['images_per_second']:11,.0f} ({spread.format(**row):>19})"
      f"  {row['images_per_second'] / alone:8.2f}"
    )


def _write(rows: list[dict[str, Any]], folder: Path) -> None:
  path = folder / "together_timing.csv"
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as f:
      writer = csv.DictWriter(f, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)
  except OSError as e:
    raise errors.UserError(
      f"cannot write --output={folder}: {e.strerror or e}; give another folder"
    ) from e
  print(f"wrote {path}")


if __name__ == "__main__":
  define_flags()
  errors.run(main)
