"""Builds and checks the parts of a run from its configuration."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import models
from fer_jax.data import pipeline
from fer_jax.data.datasets import registry
from fer_jax.data.splits import Dataset
from fer_jax.errors import MissingRelease, UserError
from fer_jax.models.layer_groups import layer_groups
from fer_jax.models.summary import Summary, summarize
from fer_jax.ops import dispatch
from fer_jax.training import (
  config_check,
  distillation,
  losses,
  overfit_check,
)
from fer_jax.training.data_parallel import DataParallel
from fer_jax.training.experiment import Experiment
from fer_jax.training.loop_state import LoopState
from fer_jax.training.optim import freezing, lr_multipliers, schedules
from fer_jax.training.optim.freezing import Freezing
from fer_jax.training.runtime import host_evaluation
from fer_jax.training.train_state import RunInputs
from fer_jax.training.train_step import TrainStep

MAX_PARAMETERS = 2**31  # 8 GB; XLA ends the process at sizes beyond int64


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
  dataset = load_dataset(config)
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
    dtype=dispatch.compute_dtype(config.dtype),
    axis_name=parallel.axis_name,
  )
  summary = _summarize(model, config)
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
    summary,
    freeze_plan,
    train_step,
    inputs,
  )


def load_dataset(config: ConfigDict) -> Dataset:
  """Opens the dataset of a configuration, as a run is trained on it.

  Raises:
    MissingRelease: it is not prepared, and there is nothing to prepare it from.
    UserError: something in the section `dataset` or in the data is wrong.
  """
  options = config.dataset.to_dict()
  try:
    dataset = registry.load(options.pop("name"), **options)
  except MissingRelease as e:
    raise MissingRelease(
      f"{e}; to train without a release, on drawn faces:"
      " dataset.name=synthetic_faces"
    ) from e
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


def _summarize(model: nn.Module, config: ConfigDict) -> Summary:
  """Summarizes the model, whose size XLA and the machine must allow.

  Raises:
    UserError: it has too many parameters.
  """
  size = config.input.image_size
  try:
    summary = summarize(model, (size, size, config.input.channels))
  except OverflowError:  # Sizes beyond the largest float.
    num_parameters = math.inf
  else:
    num_parameters = summary.num_parameters
  if num_parameters > MAX_PARAMETERS:
    options = ", ".join(f"model.{k}={v}" for k, v in config.model.items())
    raise UserError(
      f"{options}: the model has more than {MAX_PARAMETERS:,} parameters;"
      " choose a smaller one"
    )
  return summary


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
