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
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import reporting
import timing
from absl import flags
from matplotlib.figure import Figure
from reporting import Column, Row

from fer_jax import errors, models
from fer_jax.cli import recipe_flags as command
from fer_jax.configs import default
from fer_jax.ops import convolution, lowerings
from fer_jax.training import data_parallel, train_setup
from fer_jax.training.metrics import Sums
from fer_jax.training.optim import schedules
from fer_jax.training.runtime import compilation_cache
from fer_jax.training.step_inputs import RunInputs
from fer_jax.training.train_state import Tree
from fer_jax.training.train_step import Steps

NUM_CLASSES = 7
LOWERINGS = {
  name: getattr(lowerings, name) for name in ("native", "shifted", "gathered")
}
NUM_ROWS = 1024  # images on the device


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "leaky_cnn", "Which.")
  flags.DEFINE_list("runs", "1,2,4,8", "How many at once.")
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
  command.start("off")
  spread, steps = _steps()
  cases = {
    (number, together): _Runs(spread, steps, number, together)
    for number in reporting.whole_numbers("runs", given.runs)
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
  per_call = train_setup.steps_per_call(steps.config)
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
        **reporting.machine(),
      }
    )
  for row in rows:
    row["times"] = round(_of_one_by_one(rows, row), 3)
  table = reporting.Table(COLUMNS, given.output, "together_timing")
  table.add(rows)
  table.finish(picture)


def _steps() -> tuple[data_parallel.Spread, Steps]:
  """The steps of the model that the flags name."""
  given = flags.FLAGS
  config = default.get_config()
  config.model.name = given.model
  config.dtype = given.dtype
  config.input.image_size = given.image_size
  model = models.create(given.model, NUM_CLASSES, dtype=jnp.dtype(given.dtype))
  return data_parallel.Spread("jit"), Steps(config.lock(), model, NUM_CLASSES)


class _Runs:
  """Some runs of other seeds and rates, stepped together or one by one."""

  def __init__(
    self,
    spread: data_parallel.Spread,
    steps: Steps,
    number: int,
    together: bool,
  ):
    given = flags.FLAGS
    per_call = train_setup.steps_per_call(steps.config)
    shape = (given.image_size, given.image_size, 1)
    rng = np.random.default_rng(0)
    self._data = spread.replicate(
      {
        "image": rng.integers(256, size=(NUM_ROWS, *shape), dtype=np.uint8),
        "target": rng.integers(NUM_CLASSES, size=NUM_ROWS, dtype=np.int32),
      }
    )
    init = data_parallel.init_call(steps, shape)
    runs: list[tuple[Tree, ...]] = []
    for run in range(number):
      key, rate = jax.random.key(run), 1e-3 / (run + 1)
      schedule = schedules.create(steps.config.schedule, rate, 100, 1)
      inputs = RunInputs(key, schedule, jnp.float32(0))
      size = (per_call, given.batch_size)
      index = rng.integers(NUM_ROWS, size=size, dtype=np.int32)
      batch = {"index": index if per_call > 1 else index[0]}
      state = steps.flatten(init(key, inputs))
      runs.append((state, Sums.zeros(), batch, inputs))
    # One entry a call: of all runs, or of each.
    self._runs = [_stacked(runs)] if together else runs
    self._call = data_parallel.training_call(
      spread, steps, per_call > 1, together
    )

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
  stack = data_parallel.stack
  return stack(states), stack(sums), batch, stack(inputs)


def _compile_seconds(case: _Runs, lowering: str | None) -> float:
  """Compiles, by a first call."""
  with contextlib.ExitStack() as stack:
    if lowering:
      stack.enter_context(
        convolution.use(convolution.Rule.all(LOWERINGS[lowering]))
      )
    times = compilation_cache.CompileTimes()
    jax.block_until_ready(case.step())
  return times.spent


def _of_one_by_one(rows: Sequence[Row], row: Row) -> float:
  """How many times as fast as the same runs one by one."""
  (alone,) = [
    other["images_per_second"]
    for other in rows
    if (other["runs"], other["how"]) == (row["runs"], "one by one")
  ]
  return row["images_per_second"] / alone


def _spread(row: Row) -> str:
  rates = [row[f"images_per_second{of}"] for of in ("", "_low", "_high")]
  return "{:,.0f} ({:,.0f}-{:,.0f})".format(*rates)


COLUMNS = (
  Column("runs", 4, lambda row: str(row["runs"])),
  Column("how", 10, lambda row: row["how"], left=True),
  Column("compile", 7, lambda row: f"{row['compile_s']:.1f} s"),
  Column("images/s of all", 22, _spread),
  Column("times", 5, lambda row: f"{row['times']:.2f}"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws images/s of all runs against how many there are."""
  figure = Figure(figsize=(6, 3.5), layout="constrained")
  axes = figure.subplots()
  for how, colour in (("together", "#1b7f5c"), ("one by one", "#999999")):
    of = [row for row in rows if row["how"] == how]
    rates, low, high = (
      np.array([row[f"images_per_second{end}"] for row in of])
      for end in ("", "_low", "_high")
    )
    axes.errorbar(
      [row["runs"] for row in of],
      rates,
      yerr=[rates - low, high - rates],
      label=how,
      color=colour,
      marker="o",
      capsize=3,
    )
  first = rows[0]
  axes.set(
    xlabel="runs at once",
    ylabel="images/s of all runs",
    ylim=(0, None),
    title=f"{first['model']}, batch {first['batch_size']} a run,"
    f" {first['device']}",
  )
  axes.title.set_fontsize(9)
  axes.set_xticks(sorted({row["runs"] for row in rows}))
  axes.grid(axis="y", alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False)
  return figure


if __name__ == "__main__":
  define_flags()
  errors.run(main)
