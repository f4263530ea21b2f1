"""One training step and one evaluation step, as pure functions of one device.

They are written once, for one device's share of a batch; `parallel` says how
they are spread. Seeds, learning rates and their like are inputs, `RunInputs`:
runs that differ in nothing else share what is compiled. A training step has two
halves, the gradients and the update, since on CPU two programs are faster than
one.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from fer_jax.data import normalization
from fer_jax.data.transforms import augmentation, mixup
from fer_jax.ops import convolution
from fer_jax.training import flat_params, losses
from fer_jax.training.flat_params import Flat
from fer_jax.training.metrics import Sums
from fer_jax.training.optim import freezing, optimizers
from fer_jax.training.optim.lr_multipliers import ByPath
from fer_jax.training.step_inputs import RunInputs, compiled_fields
from fer_jax.training.train_state import TrainState, Tree

# A batch is {"index"} (row numbers into the resident arrays) or {"image",
# "target"}; in evaluation with "mask" too.
Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
  """The steps of one model under one configuration.

  Equal where they compile to the same.

  Attributes:
    config: the whole configuration.
    model: maps images to logits.
    num_classes: outputs of the model.
    class_weights: weight of each class in the loss; None for none.
    axis_name: the axis of the devices; None where there is one.
    frozen: paths of the parameters that are not trained.
    lr_factors: of the learning rate, by paths of parameters.
    units: sets of trained parameters by path, as in `optimizers.create`.
  """

  config: ConfigDict
  model: nn.Module
  num_classes: int
  class_weights: tuple[float, ...] | None = None
  axis_name: str | None = None
  frozen: frozenset[str] = frozenset()
  lr_factors: ByPath[float] = dataclasses.field(default_factory=dict)
  units: ByPath[str] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def _key(self) -> tuple[Any, ...]:
    """All that is compiled in."""
    return (
      compiled_fields(self.config),
      self.model,
      self.num_classes,
      self.class_weights,
      self.axis_name,
      self.frozen,
      tuple(sorted(self.lr_factors.items())),
      tuple(sorted(self.units.items())),
    )

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Steps) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)

  def optimizer(
    self, inputs: RunInputs, params: Tree = None
  ) -> optax.GradientTransformation:
    """Returns the optimizer of the trained parameters.

    Args:
      inputs: of the run.
      params: the parameters where they are packed (`flatten`).
    """
    by_group = params.by_group if isinstance(params, Flat) else dict
    return optimizers.create(
      self.config.optimizer,
      inputs.schedule,
      by_group(self.lr_factors),
      by_group(self.units),
      inputs.weight_decay,
    )

  def flatten(self, state: TrainState) -> TrainState:
    """Packs a state for the training program: see `flat_params`.

    Args:
      state: host or device arrays of one run.

    Returns:
      The state given on CPUs, where small arrays cost little, and for an
      optimizer that looks at the shape of each array.
    """
    if not convolution.on_accelerator():
      return state
    if self.config.optimizer.name not in optimizers.ELEMENTWISE:
      return state
    return jax.device_get(state).packed(self._group_of)

  def _group_of(self, path: str, param: Any) -> tuple[Any, ...]:
    """What the optimizer treats alike: the trained, decayed, with one rate."""
    return (
      path in self.frozen,
      optimizers.is_decayed(path, param),
      self.lr_factors.get(path, 1.0),
      self.units.get(path, ""),
    )

  def init(
    self,
    rng: Key[Array, ""],
    image_shape: tuple[int, int, int],
    inputs: RunInputs,
  ) -> TrainState:
    """Makes the state before the first step.

    Args:
      rng: key of the parameters.
      image_shape: height, width and channels of the model's input.
      inputs: of the run.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = self.model.init({"params": rng}, images, train=False)
    params = variables["params"]
    trained, _ = freezing.split(params, self.frozen)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get("batch_stats", {}),
      opt_state=self.optimizer(inputs).init(trained),
      ema=jax.tree.map(jnp.copy, params) if self.config.ema_decay else {},
    )

  def train(
    self,
    state: TrainState,
    sums: Sums,
    data: Tree,
    batch: Batch,
    inputs: RunInputs,
  ) -> tuple[TrainState, Sums]:
    """One step: `gradients`, then `update`."""
    gradients, batch_stats, sums = self.gradients(
      state, sums, data, batch, inputs
    )
    return self.update(state, gradients, batch_stats, inputs), sums

  def gradients(
    self,
    state: TrainState,
    sums: Sums,
    data: Tree,
    batch: Batch,
    inputs: RunInputs,
  ) -> tuple[Tree, Tree, Sums]:
    """Gradients of the loss, averaged over the devices.

    Args:
      state: as `init` makes it.
      sums: metrics of the steps before.
      data: the resident arrays; {} when batches hold images.
      batch: this device's share.
      inputs: of the run.

    Returns:
      Gradients of the trained parameters, BatchNorm statistics, and metrics
      with this step's added.
    """
    rng = jax.random.fold_in(inputs.rng, state.step)
    images, labels = _gather(data, batch)
    images, targets = self._training_input(rng, images, labels)
    weights = losses.example_weights(labels, self._class_weights())
    rngs = {"dropout": self._device_key(rng)}
    loss = self.config.loss
    params = flat_params.to_tree(state.params)
    batch_stats = flat_params.to_tree(state.batch_stats)
    trained, fixed = freezing.split(params, self.frozen)

    def loss_fn(trained: Tree) -> tuple[Array, tuple[Array, Tree]]:
      params = freezing.merge(trained, fixed)
      with freezing.fixed_norms(self.frozen):
        logits, updated = self.model.apply(
          {"params": params, "batch_stats": batch_stats},
          images,
          train=True,
          mutable=["batch_stats"],
          rngs=rngs,
        )
      logits = losses.to_output(logits, loss.output)
      per_example = losses.per_example(logits, targets, weights, loss.name)
      mean = losses.weighted_mean(per_example, weights, self.axis_name)
      return mean, (logits, updated.get("batch_stats", {}))

    (_, (logits, batch_stats)), gradients = jax.value_and_grad(
      loss_fn, has_aux=True
    )(trained)
    if isinstance(state.params, Flat):
      gradients = state.params.pack_tree(gradients)
    if isinstance(state.batch_stats, Flat):
      batch_stats = state.batch_stats.pack_tree(batch_stats)
    if self.axis_name:
      gradients = jax.lax.pmean(gradients, self.axis_name)
    seen = Sums.from_batch(
      logits, targets, losses.per_example(logits, targets, name=loss.name)
    )
    return gradients, batch_stats, sums.add(self._over_devices(seen))

  def update(
    self,
    state: TrainState,
    gradients: Tree,
    batch_stats: Tree,
    inputs: RunInputs,
  ) -> TrainState:
    """Applies gradients: the optimizer's update and the moving average."""
    params, fixed = freezing.split(state.params, self.frozen)
    updates, opt_state = self.optimizer(inputs, params).update(
      gradients, state.opt_state, params
    )
    params = optax.apply_updates(params, updates)
    decay, ema = self.config.ema_decay, {}
    if decay:
      # What is frozen is its own average, and exactly so.
      ema = jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new,
        freezing.split(state.ema, self.frozen)[0],
        params,
      )
      ema = freezing.merge(ema, freezing.split(state.ema, self.frozen)[1])
    params = freezing.merge(params, fixed)
    return TrainState(state.step + 1, params, batch_stats, opt_state, ema)

  def thaw(self, state: TrainState, inputs: RunInputs) -> TrainState:
    """The state for these steps, of which more is trained than before.

    Args:
      state: host arrays, of steps with more `frozen`.
      inputs: of the run.
    """
    params, _ = freezing.split(state.params, self.frozen)
    fresh = self.optimizer(inputs).init(params)
    return state.replace(opt_state=freezing.carry_over(state.opt_state, fresh))

  def evaluate(
    self, variables: Tree, sums: Sums, data: Tree, batch: Batch
  ) -> Sums:
    """Adds a batch's loss and accuracy; masked rows do not count.

    Args:
      variables: `params` and `batch_stats`.
      sums: metrics of the batches before.
      data: the resident arrays; {} when batches hold images.
      batch: this device's share, with `mask`.
    """
    logits, labels = self.logits(variables, data, batch)
    targets = losses.one_hot_targets(labels, self.num_classes)
    per_example = losses.per_example(
      logits, targets, name=self.config.loss.name
    )
    seen = Sums.from_batch(logits, targets, per_example, batch["mask"])
    return sums.add(self._over_devices(seen))

  def logits(
    self, variables: Tree, data: Tree, batch: Batch
  ) -> tuple[Float[Array, "b k"], Array]:
    """What a batch's softmax is taken of in evaluation, and its targets."""
    images, labels = _gather(data, batch)
    images = normalization.prepare(images, **self.config.input)
    variables = flat_params.to_tree(variables)
    logits = self.model.apply(variables, images, train=False)
    assert isinstance(logits, jax.Array)
    return losses.to_output(logits, self.config.loss.output), labels

  def _training_input(
    self, rng: Key[Array, ""], images: Array, labels: Array
  ) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
    """Images as the model sees them in training, and soft targets."""
    config = self.config
    augment_rng, mix_rng = jax.random.split(jax.random.fold_in(rng, 0))
    images = normalization.to_float(images, config.input.channels)
    options = augmentation.Augmentation(**config.augment)
    if augmentation.any_on(options):
      positions = self._positions(images.shape[0])
      images = augmentation.augment(augment_rng, images, positions, options)
    targets = losses.one_hot_targets(
      labels, self.num_classes, config.loss.label_smoothing
    )
    images = normalization.resize(images, config.input.image_size)
    images = normalization.normalize(
      images, config.input.normalization, config.input.mean, config.input.std
    )
    return mixup.mix(
      mix_rng, images, targets, mixup=options.mixup, cutmix=options.cutmix
    )

  def _positions(self, share: int) -> Int[Array, " b"]:
    """Where this device's images lie in the global batch."""
    positions = jnp.arange(share)
    if self.axis_name:
      positions += jax.lax.axis_index(self.axis_name) * share
    return positions

  def _device_key(self, rng: Key[Array, ""]) -> Key[Array, ""]:
    """A key for what is drawn by device: dropout."""
    if self.axis_name:
      rng = jax.random.fold_in(rng, jax.lax.axis_index(self.axis_name))
    return jax.random.fold_in(rng, 1)

  def _class_weights(self) -> Array | None:
    if self.class_weights is None:
      return None
    return jnp.asarray(self.class_weights, jnp.float32)

  def _over_devices(self, sums: Sums) -> Sums:
    return sums.psum(self.axis_name) if self.axis_name else sums


def _gather(data: Tree, batch: Batch) -> tuple[Array, Any]:
  """Images and targets of a batch, from the resident arrays if need be."""
  if "image" in batch:
    return batch["image"], batch["target"]
  index = batch["index"]
  return data["image"][index], data["target"][index]
