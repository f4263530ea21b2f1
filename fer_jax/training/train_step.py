"""One training step, as pure functions of one device.

A step computes the gradients of the loss for one device's part of a batch,
then applies them. `data_parallel` runs it on several devices, `compiled_steps`
compiles it.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from fer_jax.ops import dispatch
from fer_jax.training import flat_params, losses
from fer_jax.training.batch_preparation import (
  Batch,
  gather,
  prepare_training_batch,
)
from fer_jax.training.flat_params import Flat
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import adam_kernel, ema, freezing, optimizers
from fer_jax.training.optim.lr_multipliers import ByPath
from fer_jax.training.train_state import (
  RunInputs,
  TrainState,
  Tree,
  compiled_fields,
)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
  """The training step of one model under one configuration.

  Two instances are equal if they compile to the same program.

  Attributes:
    config: the whole configuration.
    model: maps images to logits.
    num_classes: outputs of the model.
    class_weights: weight of each class in the loss; None for equal weights.
    axis_name: the axis to average gradients over; None on one device.
    frozen: paths of the parameters that are not trained.
    lr_multipliers: factors of the learning rate, by parameter path.
    moment_groups: the group of each trained parameter that has optimizer
      moments of its own, by parameter path; {} for one group.
  """

  config: ConfigDict
  model: nn.Module
  num_classes: int
  class_weights: tuple[float, ...] | None = None
  axis_name: str | None = None
  frozen: frozenset[str] = frozenset()
  lr_multipliers: ByPath[float] = dataclasses.field(default_factory=dict)
  moment_groups: ByPath[str] = dataclasses.field(default_factory=dict)

  def __call__(
    self,
    state: TrainState,
    metrics: Metrics,
    data: Tree,
    batch: Batch,
    inputs: RunInputs,
  ) -> tuple[TrainState, Metrics]:
    """Trains on one batch: `gradients`, then `update`."""
    gradients, batch_stats, metrics = self.gradients(
      state, metrics, data, batch, inputs
    )
    return self.update(state, gradients, batch_stats, inputs), metrics

  def init(
    self,
    rng: Key[Array, ""],
    image_shape: tuple[int, int, int],
    inputs: RunInputs,
  ) -> TrainState:
    """Returns the state before the first step, for images of a shape."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = self.model.init({"params": rng}, images, train=False)
    params = variables["params"]
    trained, _ = freezing.split(params, self.frozen)
    state = TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get("batch_stats", {}),
      opt_state=self.optimizer(inputs).init(trained),
      ema={},
    )
    if self.config.ema_decay:
      state = state.replace(ema=jax.tree.map(jnp.copy, state.variables()))
    return state

  def gradients(
    self,
    state: TrainState,
    metrics: Metrics,
    data: Tree,
    batch: Batch,
    inputs: RunInputs,
  ) -> tuple[Tree, Tree, Metrics]:
    """Computes the gradients of the loss, averaged over the devices.

    Args:
      state: as `init` returns it.
      metrics: sums over the steps before.
      data: the split's arrays on the device; {} if batches hold images.
      batch: this device's part of the batch.
      inputs: the run's.

    Returns:
      The gradients, new BatchNorm statistics, and the metrics with this step's.
    """
    rng = jax.random.fold_in(inputs.rng, state.step)
    images, labels = gather(data, batch)
    prepared = prepare_training_batch(
      rng,
      images,
      labels,
      self.config,
      self.num_classes,
      self.axis_name,
      self.class_weights,
    )
    params = flat_params.layer_params(state.params, self.config.dtype)
    trained, frozen = freezing.split(params, self.frozen)
    loss_fn = functools.partial(
      self.loss,
      frozen=frozen,
      batch_stats=flat_params.to_tree(state.batch_stats),
      images=prepared.images,
      targets=prepared.loss_targets,
      weights=prepared.weights,
      # Equal on all devices: the model draws the mask of the global batch.
      dropout_rng=jax.random.fold_in(rng, 1),
    )
    (_, (logits, batch_stats)), gradients = jax.value_and_grad(
      loss_fn, has_aux=True
    )(trained)
    if isinstance(state.params, Flat):
      gradients = state.params.pack_tree(gradients)
    if isinstance(state.batch_stats, Flat):
      batch_stats = state.batch_stats.pack_tree(batch_stats)
    if self.axis_name:
      gradients = jax.lax.pmean(gradients, self.axis_name)
    targets = prepared.targets
    seen = Metrics.from_batch(
      logits,
      targets,
      losses.per_example(logits, targets, name=self.config.loss.name),
    )
    if self.axis_name:
      seen = seen.psum(self.axis_name)
    return gradients, batch_stats, metrics.add(seen)

  def loss(
    self,
    trained: Tree,
    *,
    frozen: Tree,
    batch_stats: Tree,
    images: Float[Array, "b h w c"],
    targets: Float[Array, "b k"],
    weights: Float[Array, " b"],
    dropout_rng: Key[Array, ""],
  ) -> tuple[Float[Array, ""], tuple[Float[Array, "b k"], Tree]]:
    """Computes the loss of a batch.

    Args:
      trained: the parameters to differentiate with respect to.
      frozen: the other parameters.
      batch_stats: BatchNorm's running statistics.
      images: augmented and normalized.
      targets: a distribution over classes for each image.
      weights: of each image, from its classes.
      dropout_rng: key of dropout.

    Returns:
      The mean loss; the logits and the new running statistics.
    """
    options = self.config.loss
    params = freezing.merge(trained, frozen)
    products = dispatch.product_dtype(self.config.dtype)
    with freezing.fixed_norms(self.frozen), products:
      logits, updated = self.model.apply(
        {"params": params, "batch_stats": batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": dropout_rng},
      )
    logits = losses.to_output(logits, options.output)
    per_example = losses.per_example(logits, targets, weights, options.name)
    mean = losses.weighted_mean(per_example, weights, self.axis_name)
    return mean, (logits, updated.get("batch_stats", {}))

  @jax.named_scope("optimizer")
  def update(
    self,
    state: TrainState,
    gradients: Tree,
    batch_stats: Tree,
    inputs: RunInputs,
  ) -> TrainState:
    """Applies gradients: the optimizer's update and the moving averages."""
    params, frozen = freezing.split(state.params, self.frozen)
    params, opt_state = self._optimize(
      params, state.opt_state, gradients, inputs
    )
    params = freezing.merge(params, frozen)
    new = TrainState(state.step + 1, params, batch_stats, opt_state, state.ema)
    if self.config.ema_decay:
      averages = ema.update(
        state.ema, new.variables(), state.step, self.config.ema_decay
      )
      new = new.replace(ema=averages)
    return new

  def _optimize(
    self, params: Tree, opt_state: Tree, gradients: Tree, inputs: RunInputs
  ) -> tuple[Tree, Tree]:
    """Returns the trained parameters and the optimizer's state, updated."""
    differ = self.lr_multipliers or self.moment_groups
    if not differ and adam_kernel.supports(self.config.optimizer, params):
      return adam_kernel.apply(
        self.config.optimizer,
        inputs.schedule,
        inputs.weight_decay,
        gradients,
        opt_state,
        params,
      )
    updates, opt_state = self.optimizer(inputs, params).update(
      gradients, opt_state, params
    )
    return optax.apply_updates(params, updates), opt_state

  def unfreeze(self, state: TrainState, inputs: RunInputs) -> TrainState:
    """Converts the state of a step that trained fewer parameters to this one.

    Args:
      state: host arrays, of a step with more `frozen` parameters.
      inputs: the run's.
    """
    params, _ = freezing.split(state.params, self.frozen)
    new = self.optimizer(inputs).init(params)
    return state.replace(opt_state=freezing.carry_over(state.opt_state, new))

  def optimizer(
    self, inputs: RunInputs, params: Tree = None
  ) -> optax.GradientTransformation:
    """Returns the optimizer of the trained parameters.

    Args:
      inputs: the run's.
      params: the trained parameters; only needed if they are packed.
    """
    by_group = params.by_group if isinstance(params, Flat) else dict
    return optimizers.create(
      self.config.optimizer,
      inputs.schedule,
      by_group(self.lr_multipliers),
      by_group(self.moment_groups),
      inputs.weight_decay,
    )

  @functools.cached_property
  def _key(self) -> tuple[Any, ...]:
    """Everything that is compiled into the step."""
    return (
      dispatch.platform(),
      compiled_fields(self.config),
      self.model,
      self.num_classes,
      self.class_weights,
      self.axis_name,
      self.frozen,
      tuple(sorted(self.lr_multipliers.items())),
      tuple(sorted(self.moment_groups.items())),
    )

  def __eq__(self, other: object) -> bool:
    return isinstance(other, TrainStep) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)
