"""From a configuration to all that a run needs, checked before compiling."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import models
from fer_jax.data import pipeline, registry
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import UserError
from fer_jax.training import losses, optimizers, schedules
from fer_jax.training.parallel import Spread
from fer_jax.training.state import TrainState, Tree
from fer_jax.training.step import Steps
from fer_jax.training.stopping import Stopping


@dataclasses.dataclass
class Setup:
  """The parts of a run.

  Attributes:
    config: checked and locked.
    dataset: its splits.
    order: the rows of every training batch.
    spread: how steps run over devices.
    model: maps images to logits.
    steps: the training and evaluation steps of one device.
    schedule: learning rate by updates done.
    stopping: follows the best epoch.
    plateau: lowers the learning rate; None under other schedules.
  """

  config: ConfigDict
  dataset: Dataset
  order: pipeline.BatchOrder
  spread: Spread
  model: nn.Module
  steps: Steps
  schedule: optax.Schedule
  stopping: Stopping
  plateau: schedules.Plateau | None

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of the model's input."""
    size = self.config.input.image_size
    return size, size, self.config.input.channels

  @functools.cached_property
  def rng(self) -> jax.Array:
    """The run's key; all randomness but the order comes from it."""
    return jax.random.key(self.config.seed)

  def init_state(self) -> TrainState:
    """The state before the first step, on one device."""
    init = jax.jit(lambda rng: self.steps.init(rng, self.input_shape))
    return init(jax.random.fold_in(self.rng, 0))

  def step_rng(self) -> jax.Array:
    """The key that every step folds its number into."""
    return jax.random.fold_in(self.rng, 1)

  def resident(self, split: Split) -> Tree:
    """A split on every device, or {} where batches carry the images."""
    if self.config.feed != "resident":
      return {}
    arrays = split.arrays()
    return self.spread.replicate(
      {name: arrays[name] for name in ("image", "target")}
    )


def build(config: ConfigDict) -> Setup:
  """Makes the parts of a run.

  Raises:
    UserError: something in the configuration or the data set is wrong.
  """
  configs.check(config)
  spread = Spread(config.parallel)
  spread.check_batch("batch_size", config.batch_size)
  spread.check_batch("eval_batch_size", config.eval_batch_size)
  stopping = Stopping(
    config.best_metric,
    config.early_stopping.patience,
    config.early_stopping.min_delta,
  )
  options = config.dataset.to_dict()
  dataset = registry.load(options.pop("name"), **options)
  train_split = dataset.split("train")
  dataset.split("validation")  # Selects the best epoch: an error without.
  order = pipeline.BatchOrder(
    len(train_split),
    config.batch_size,
    config.num_epochs,
    config.seed,
    jax.process_index(),
    jax.process_count(),
  )
  accumulate_steps = config.optimizer.accumulate_steps
  schedule = schedules.create(
    config.schedule,
    config.optimizer.learning_rate,
    order.steps_per_epoch,
    config.num_epochs,
    accumulate_steps,
  )
  optimizer = optimizers.create(config.optimizer, schedule)
  options = config.model.to_dict()
  model = models.create(
    options.pop("name"),
    dataset.num_classes,
    **options,
    dtype=jnp.dtype(config.dtype),
    axis_name=spread.axis_name,
  )
  class_weights = None
  if config.loss.class_weights == "balanced":
    weights = losses.balanced_class_weights(
      train_split.targets(), dataset.num_classes
    )
    class_weights = tuple(float(w) for w in weights)
  steps = Steps(
    config,
    model,
    optimizer,
    dataset.num_classes,
    class_weights,
    spread.axis_name,
  )
  plateau = None
  if config.schedule.name == "plateau":
    plateau = schedules.Plateau(
      config.schedule.step_factor,
      config.schedule.plateau_patience,
      config.schedule.plateau_min_delta,
    )
  return Setup(
    config, dataset, order, spread, model, steps, schedule, stopping, plateau
  )


def steps_per_call(config: ConfigDict) -> int:
  """Steps in one compiled call: 1 on CPU, where loop bodies lose threads."""
  if config.steps_per_call:
    return int(config.steps_per_call)
  return 1 if jax.default_backend() == "cpu" else 10


def check_rows(setup: Setup, rows_before: int) -> None:
  """Raises UserError where the training split changed since the checkpoint."""
  rows = setup.order.num_rows
  if rows != rows_before:
    raise UserError(
      f"data set {setup.dataset.name} has {rows} training rows, but the run"
      f" began with {rows_before}: give the same release, or another --workdir"
    )
