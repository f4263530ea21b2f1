"""From a configuration to all that a run needs, checked before compiling."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import models
from fer_jax.data import pipeline
from fer_jax.data.datasets import registry
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import UserError
from fer_jax.models.layer_groups import layer_groups
from fer_jax.training import initial_weights, losses, overfit_check
from fer_jax.training.data_parallel import Spread, init_call
from fer_jax.training.optim import freezing, lr_multipliers, schedules
from fer_jax.training.optim.early_stopping import Stopping
from fer_jax.training.optim.freezing import Freezing
from fer_jax.training.step_inputs import RunInputs
from fer_jax.training.train_state import TrainState, Tree
from fer_jax.training.train_step import Steps


@dataclasses.dataclass
class Setup:
  """The parts of a run.

  Attributes:
    config: checked and locked; with `overfit`, without what hinders that.
    dataset: its splits.
    order: the rows of every training batch.
    spread: how steps run over devices.
    model: maps images to logits.
    steps: the training and evaluation steps of one device, at the start.
    inputs: of the steps, the same in all of them.
    freezing: what is trained from which epoch on.
    stopping: follows the best epoch.
    plateau: lowers the learning rate; None under other schedules.
  """

  config: ConfigDict
  dataset: Dataset
  order: pipeline.BatchOrder
  spread: Spread
  model: nn.Module
  steps: Steps
  inputs: RunInputs
  stopping: Stopping
  plateau: schedules.Plateau | None
  freezing: Freezing

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of the model's input."""
    size = self.config.input.image_size
    return size, size, self.config.input.channels

  def init_state(self, epoch: int = 0) -> TrainState:
    """A fresh state, on one device.

    Args:
      epoch: epochs done, by which more parameters may be trained.
    """
    init = init_call(self.steps_at(epoch), self.input_shape)
    rng = jax.random.key(self.config.seed)
    return init(jax.random.fold_in(rng, 0), self.inputs)

  def state_shapes(self, epoch: int = 0) -> TrainState:
    """Shapes and types of `init_state`, of which nothing is computed."""
    shapes = jax.eval_shape(functools.partial(self.init_state, epoch))
    assert isinstance(shapes, TrainState)
    return shapes

  def first_state(self) -> TrainState:
    """The state before a run's first step: fresh, or from `init_from`."""
    state = self.init_state()
    return self.start.put(state) if self.start else state

  @functools.cached_property
  def start(self) -> initial_weights.Start | None:
    """The weights a new run starts from, read once; None for fresh ones.

    Raises:
      UserError: they are missing or do not fit.
    """
    if not self.config.init_from:
      return None
    weights = initial_weights.read(self.config.init_from)
    names = self.dataset.class_names
    return initial_weights.fit(weights, self.model, self.config, names)

  def steps_at(self, epoch: int) -> Steps:
    """The steps after so many epochs: more may be trained than before."""
    frozen = self.freezing.frozen(epoch)
    if frozen == self.steps.frozen:
      return self.steps
    units = self.freezing.trained_units(epoch)
    return dataclasses.replace(self.steps, frozen=frozen, units=units)

  def resident(self, split: Split) -> Tree:
    """A split on every device, or {} where batches carry the images."""
    if self.config.data_loader != "in_memory":
      return {}
    arrays = split.arrays()
    return self.spread.replicate(
      {name: arrays[name] for name in ("image", "target")}
    )


def build(config: ConfigDict, dataset: Dataset | None = None) -> Setup:
  """Makes the parts of a run.

  Args:
    config: of the run.
    dataset: what it names, where that is loaded already.

  Raises:
    UserError: something in the configuration or the data set is wrong.
  """
  configs.check(config)
  if config.overfit:
    config = overfit_check.plain(config)
  spread = Spread(config.parallel)
  spread.check_batch("config.batch_size", config.batch_size)
  spread.check_batch("config.eval_batch_size", config.eval_batch_size)
  stopping = Stopping(
    config.best_metric,
    config.early_stopping.patience,
    config.early_stopping.min_delta,
  )
  if dataset is None:
    options = config.dataset.to_dict()
    dataset = registry.load(options.pop("name"), **options)
  if config.overfit:
    dataset = overfit_check.subset(dataset, config.overfit, config.seed)
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
  options = config.model.to_dict()
  model = models.create(
    options.pop("name"),
    dataset.num_classes,
    **options,
    dtype=jnp.dtype(config.dtype),
    axis_name=spread.axis_name,
  )
  frozen, lr_factors = _layer_choices(config, model)
  class_weights = None
  if config.loss.class_weights == "balanced":
    weights = losses.balanced_class_weights(
      train_split.targets(), dataset.num_classes
    )
    class_weights = tuple(float(w) for w in weights)
  steps = Steps(
    config,
    model,
    dataset.num_classes,
    class_weights,
    spread.axis_name,
    frozen.frozen(0),
    lr_factors,
    frozen.trained_units(0),
  )
  rng = jax.random.fold_in(jax.random.key(config.seed), 1)
  decay = jnp.asarray(config.optimizer.weight_decay, jnp.float32)
  inputs = RunInputs(rng, schedule, decay)
  steps.optimizer(inputs)  # Refuses wrong fields.
  plateau = None
  if config.schedule.name == "plateau":
    plateau = schedules.Plateau(
      config.schedule.step_factor,
      config.schedule.plateau_patience,
      config.schedule.plateau_min_delta,
    )
  return Setup(
    config,
    dataset,
    order,
    spread,
    model,
    steps,
    inputs,
    stopping,
    plateau,
    frozen,
  )


def _layer_choices(
  config: ConfigDict, model: nn.Module
) -> tuple[Freezing, dict[str, float]]:
  """What is frozen, and factors of the learning rate; named by layers."""
  text = config.optimizer.lr_multipliers
  if not (text or config.freeze.patterns or config.freeze.unfreeze_epochs):
    return Freezing(), {}  # The usual case needs no trace of the model.
  size = config.input.image_size
  groups = layer_groups(model, (size, size, config.input.channels))
  frozen = freezing.create(config.freeze, groups, config.num_epochs)
  return frozen, lr_multipliers.read(text, groups)


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
