r"""Times training steps with frozen layers relative to the whole model.

python benchmarks/freezing_timing.py [--model=resnet18] \
  [--frozen='conv1,layer1;backbone'] [--batch_size=64] [--turns=7]

Also prints XLA's count of the operations of the gradients, with XLA's
convolutions, and the size of the optimizer's state.
"""

from collections.abc import Sequence

import jax
import numpy as np
import timing
from absl import flags

from fer_jax.cli import app
from fer_jax.configs import default
from fer_jax.ops import dispatch
from fer_jax.training import compiled_steps
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import optimizers
from fer_jax.training.runtime import startup
from fer_jax.training.train_state import Tree


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "resnet18", "Model.")
  flags.DEFINE_string(
    "frozen",
    "conv1,layer1;conv1,layer1,layer2;backbone",
    "Values of freeze.patterns, separated by semicolons.",
  )
  flags.DEFINE_enum("optimizer", "adam", optimizers.NAMES, "Optimizer.")
  flags.DEFINE_integer("batch_size", 64, "Images per step.", lower_bound=1)
  flags.DEFINE_integer("turns", 7, "Repetitions per case.", lower_bound=3)
  flags.DEFINE_integer("steps", 3, "Steps per repetition.", lower_bound=1)


class _Case:
  """A model with some layers frozen, and its training step."""

  def __init__(self, patterns: str):
    given = flags.FLAGS
    config = default.get_config()
    config.model.name = given.model
    config.dataset.name = "synthetic_faces"
    config.optimizer.name = given.optimizer
    config.batch_size = given.batch_size
    config.freeze.patterns = patterns
    config.parallel = "jit"
    parts = create_experiment(config.lock())
    step = parts.train_step(epoch=0)
    self._train = compiled_steps.make_train_step(parts.parallel, step)
    self._state = parts.init_state()
    self._data = parts.train_data
    self._batch = {"index": np.arange(given.batch_size, dtype=np.int32)}
    self._inputs = parts.inputs
    with dispatch.use_xla():
      lowered = jax.jit(lambda *args: step.gradients(*args)).lower(
        self._state, Metrics.zeros(), self._data, self._batch, parts.inputs
      )
    self.flops = (lowered.cost_analysis() or {}).get("flops", float("nan"))
    leaves = jax.tree.leaves(self._state.opt_state)
    self.num_bytes = sum(leaf.nbytes for leaf in leaves)

  def step(self) -> Tree:
    """Trains one step on the same batch."""
    self._state, sums = self._train(
      self._state, Metrics.zeros(), self._data, self._batch, self._inputs
    )
    return sums


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  startup.start("off")
  cases = {}
  for patterns in ["", *filter(None, given.frozen.split(";"))]:
    cases[patterns or "nothing"] = _Case(patterns)
  timings = timing.interleave(
    {name: case.step for name, case in cases.items()},
    num_turns=given.turns,
    calls_per_turn=given.steps,
  )
  whole = timings["nothing"].median
  print(f"{given.model}, batch {given.batch_size}, {given.turns} repetitions")
  print("  ms/step (low-high)    relative  GFLOP  optimizer MB  frozen")
  for name, of in timings.items():
    low, high = f"{of.low * 1e3:.1f}", f"{of.high * 1e3:.1f}"
    print(
      f"{of.median * 1e3:8.1f} ({low:>6}-{high:>6})"
      f"  {of.median / whole:8.0%}  {cases[name].flops / 1e9:5.1f}"
      f"  {cases[name].num_bytes / 1e6:12.2f}  {name}"
    )


if __name__ == "__main__":
  define_flags()
  app.run(main)
