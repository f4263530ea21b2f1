"""The parts of a run: its data, model, devices and training step."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import __version__
from fer_jax import config as configs
from fer_jax.data import pipeline
from fer_jax.data.splits import Dataset, Split, differences
from fer_jax.errors import UserError
from fer_jax.models.summary import Summary
from fer_jax.training import distillation, initial_weights, packing
from fer_jax.training.batch_preparation import arrange_split
from fer_jax.training.data_parallel import DataParallel
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
    model_summary: the model's layers, parameters and operations.
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
  model_summary: Summary
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
    return self.parallel.replicate(packing.pack(self.train_step(epoch), state))

  def placed_shapes(self, epoch: int) -> TrainState:
    """Returns what `place` returns after `epoch` epochs, as shapes."""
    step, shapes = self.train_step(epoch), self.state_shapes(epoch)
    return self.parallel.replicated_shapes(packing.pack_shapes(step, shapes))

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

    The teacher may have another name or place, but not other weights.

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
    if "teacher" in info:
      is_same = info["teacher"] == self.info()["teacher"]
    else:  # An older version recorded its name only.
      name = configs.from_json(info["config"]).loss.teacher
      is_same = name == self.config.loss.teacher
    if not is_same:
      raise UserError(
        f"loss.teacher={self.config.loss.teacher} is not the model that the run"
        " started with: use the same weights, or another workdir"
      )
