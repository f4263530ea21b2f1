"""The parts of a run, built and checked from its configuration."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import __version__, models
from fer_jax import config as configs
from fer_jax.data import pipeline
from fer_jax.data.datasets import registry
from fer_jax.data.splits import Dataset, Split, differences
from fer_jax.errors import UserError
from fer_jax.models.layer_groups import layer_groups
from fer_jax.training import (
  config_check,
  distillation,
  initial_weights,
  losses,
  overfit_check,
)
from fer_jax.training.batch_preparation import arrange_split
from fer_jax.training.data_parallel import DataParallel
from fer_jax.training.loop_state import LoopState
from fer_jax.training.optim import freezing, lr_multipliers, schedules
from fer_jax.training.optim.freezing import Freezing
from fer_jax.training.runtime import host_evaluation
from fer_jax.training.train_state import RunInputs, TrainState, Tree
from fer_jax.training.train_step import TrainStep


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The parts of a run; they do not change while it trains.

  Attributes:
    config: checked and locked; with `overfit`, without regularization.
    dataset: the splits.
    teacher: changes the training targets; None for none.
    batch_order: the examples of every training batch.
    parallel: the devices.
    model: maps images to logits.
    freezing: which parameters are trained from which epoch on.
    first_train_step: the training step of one device in the first epoch.
    inputs: the arguments of every step.
  """

  config: ConfigDict
  dataset: Dataset
  teacher: distillation.Teacher | None
  batch_order: pipeline.BatchOrder
  parallel: DataParallel
  model: nn.Module
  freezing: Freezing
  first_train_step: TrainStep
  inputs: RunInputs

  @property
  def steps_per_epoch(self) -> int:
    """Number of batches in an epoch."""
    return self.batch_order.steps_per_epoch

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of the model's input."""
    size = self.config.input.image_size
    return size, size, self.config.input.channels

  def train_step(self, epoch: int) -> TrainStep:
    """Returns the step after `epoch` epochs: later ones may train more."""
    frozen = self.freezing.frozen(epoch)
    if frozen == self.first_train_step.frozen:
      return self.first_train_step
    groups = self.freezing.moment_groups(epoch)
    return dataclasses.replace(
      self.first_train_step, frozen=frozen, moment_groups=groups
    )

  def init_state(
    self, weights: initial_weights.InitialWeights | None = None
  ) -> TrainState:
    """Returns the state before the first step, on the host.

    Args:
      weights: replace randomly initialized parameters.
    """
    with host_evaluation.host_device():
      rng = jax.random.fold_in(jax.random.key(self.config.seed), 0)
    state = host_evaluation.evaluate(self._traced_init, rng, self.inputs)
    return weights.put(state) if weights else state

  def state_shapes(self, epoch: int = 0) -> TrainState:
    """Returns shapes and types of the state after `epoch` epochs."""
    step = self.train_step(epoch)
    if step == self.first_train_step:
      return self._traced_init.out_info
    return self._trace_init(step).out_info

  @functools.cached_property
  def _traced_init(self) -> jax.stages.Traced:
    """The initialization of the first step's state, traced once."""
    return self._trace_init(self.first_train_step)

  def _trace_init(self, step: TrainStep) -> jax.stages.Traced:
    init = jax.jit(lambda rng, inputs: step.init(rng, self.input_shape, inputs))
    return init.trace(jax.eval_shape(jax.random.key, 0), self.inputs)

  def place(self, state: TrainState, epoch: int) -> TrainState:
    """Puts a state on the devices, in the form that suits them.

    Args:
      state: host or single-device arrays, after `epoch` epochs.
      epoch: finished epochs.
    """
    return self.parallel.replicate(self.train_step(epoch).flatten(state))

  def placed_shapes(self, epoch: int) -> TrainState:
    """Returns what `place` returns after `epoch` epochs, as shapes."""
    shapes = self.train_step(epoch).flatten_shapes(self.state_shapes(epoch))
    return self.parallel.replicated_shapes(shapes)

  def unfreeze(self, state: TrainState, epoch: int) -> TrainState:
    """Converts the state for the epochs after `epoch`, which may train more.

    Args:
      state: on the devices, after the last step of that epoch.
      epoch: finished epochs.
    """
    step, last_step = self.train_step(epoch), self.train_step(epoch - 1)
    if step.frozen == last_step.frozen:
      return state
    host_state = step.unfreeze(self.parallel.fetch(state), self.inputs)
    return self.place(host_state, epoch)

  def read_initial_weights(self) -> initial_weights.InitialWeights | None:
    """Reads the weights that `init_from` names; None if it names none.

    Raises:
      UserError: they are missing or do not fit the model.
    """
    if not self.config.init_from:
      return None
    weights = initial_weights.read(self.config.init_from)
    names = self.dataset.class_names
    return initial_weights.fit(weights, self.model, self.config, names)

  def device_data(self, split: Split) -> Tree:
    """Puts a split on every device; {} if batches carry the images."""
    if self.config.data_loader != "in_memory":
      return {}
    return self.parallel.replicate(arrange_split(split.arrays()))

  @functools.cached_property
  def train_split(self) -> Split:
    """The examples that are trained on; a teacher predicts them first."""
    split = self.dataset.split("train")
    return self.teacher.teach(split) if self.teacher else split

  @functools.cached_property
  def train_data(self) -> Tree:
    """The training split on every device; {} if batches carry the images."""
    return self.device_data(self.train_split)

  @functools.cached_property
  def device_inputs(self) -> RunInputs:
    """`inputs` on every device."""
    return self.parallel.replicate(self.inputs)

  def info(self) -> dict[str, Any]:
    """Returns what every checkpoint of the run says beside its arrays."""
    return {
      "fer_jax": __version__,
      "config": configs.to_json(self.config),
      "class_names": list(self.dataset.class_names),
      "image_shape": list(self.dataset.image_shape),
      "data": self.dataset.description(),
      "teacher": self.teacher.digest if self.teacher else "",
    }

  def check_same_data(self, info: Mapping[str, Any]) -> None:
    """Raises UserError if the data or the teacher changed since a checkpoint.

    Args:
      info: of the checkpoint; that of an older version has less to compare.
    """
    before = info.get("data") or {
      "class_names": info["class_names"],
      "image_shape": info["image_shape"],
      "num_examples": {"train": info["num_rows"]},
    }
    if changed := differences(before, self.dataset.description()):
      raise UserError(
        f"the data of dataset {self.dataset.name} are not those that the run"
        f" started with ({'; '.join(changed)}): use the same data, or another"
        " workdir"
      )
    teacher = self.info()["teacher"]
    if info.get("teacher", teacher) != teacher:
      raise UserError(
        f"loss.teacher={self.config.loss.teacher} is not the model that the run"
        " started with: use the same weights, or another workdir"
      )


def create_experiment(config: ConfigDict) -> Experiment:
  """Builds the parts of a run, without compiling anything.

  Args:
    config: as `configs/default.py` describes it.

  Raises:
    UserError: something in the configuration or the dataset is wrong.
  """
  config_check.check(config)
  if config.overfit:
    config = overfit_check.without_regularization(config)
  LoopState.create(config)  # Checks early stopping before data are loaded.
  parallel = DataParallel(config.parallel)
  parallel.check_batch("batch_size", config.batch_size)
  parallel.check_batch("eval_batch_size", config.eval_batch_size)
  teacher = distillation.load_teacher(config.loss)  # Before data are prepared.
  dataset = _load_dataset(config)
  if teacher:
    teacher.check_fits(dataset)
  config = configs.with_dataset_input(config, dataset.image_shape)
  batch_order = pipeline.BatchOrder(
    len(dataset.split("train")),
    config.batch_size,
    config.num_epochs,
    config.seed,
    jax.process_index(),
    jax.process_count(),
  )
  with host_evaluation.host_device():
    inputs = RunInputs(
      rng=jax.random.fold_in(jax.random.key(config.seed), 1),
      schedule=schedules.create(
        config.schedule,
        config.optimizer.learning_rate,
        batch_order.steps_per_epoch,
        config.num_epochs,
        config.optimizer.accumulate_steps,
      ),
      weight_decay=jnp.asarray(config.optimizer.weight_decay, jnp.float32),
    )
  options = config.model.to_dict()
  model = models.create(
    options.pop("name"),
    dataset.num_classes,
    **options,
    dtype=jnp.dtype(config.dtype),
    axis_name=parallel.axis_name,
  )
  freeze_plan, multipliers = _layer_options(config, model)
  train_step = TrainStep(
    config,
    model,
    dataset.num_classes,
    _class_weights(config, dataset),
    parallel.axis_name,
    freeze_plan.frozen(0),
    multipliers,
    freeze_plan.moment_groups(0),
  )
  train_step.optimizer(inputs)  # Checks the optimizer's fields.
  return Experiment(
    config,
    dataset,
    teacher,
    batch_order,
    parallel,
    model,
    freeze_plan,
    train_step,
    inputs,
  )


def _load_dataset(config: ConfigDict) -> Dataset:
  options = config.dataset.to_dict()
  dataset = registry.load(options.pop("name"), **options)
  if config.overfit:
    dataset = overfit_check.subset(dataset, config.overfit, config.seed)
  dataset.split("validation")  # Needed to select the best epoch.
  return dataset


def _class_weights(
  config: ConfigDict, dataset: Dataset
) -> tuple[float, ...] | None:
  if config.loss.class_weights != "balanced":
    return None
  targets = dataset.split("train").targets()
  weights = losses.balanced_class_weights(targets, dataset.num_classes)
  return tuple(float(weight) for weight in weights)


def _layer_options(
  config: ConfigDict, model: nn.Module
) -> tuple[Freezing, dict[str, float]]:
  """Returns what is frozen, and factors of the learning rate by parameter."""
  text = config.optimizer.lr_multipliers
  if not (text or config.freeze.patterns or config.freeze.unfreeze_epochs):
    return Freezing(), {}  # Without a need, the model is not traced.
  size = config.input.image_size
  groups = layer_groups(model, (size, size, config.input.channels))
  frozen = freezing.create(config.freeze, groups, config.num_epochs)
  return frozen, lr_multipliers.read(text, groups)
