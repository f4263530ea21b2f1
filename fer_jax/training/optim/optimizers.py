"""The optimizers, with the learning rate in their state.

Every optimizer is a chain: clip the gradient, compute a direction, scale it by
the learning rate. The rate is the schedule's value times a factor that is an
array in the state, so the host can change it (reduce on plateau) without
recompiling the step.

Weight decay acts on kernels only, never on biases or on the scale and bias of
a normalization layer. Its meaning depends on the optimizer:

* sgd, adam: L2, `weight_decay * p` is added to the clipped gradient, as in
  torch.optim.SGD and Adam.
* adamw, adafactor: decoupled, each update decreases p by
  `learning_rate * weight_decay * p` (Loshchilov and Hutter 2019), as in
  torch.optim.AdamW and Adafactor and in transformers' Adafactor.
  optax.adafactor does not scale it by the learning rate: divide a value chosen
  for that by the learning rate.
"""

import math
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int32, PyTree
from ml_collections import ConfigDict

from fer_jax.errors import choose, require
from fer_jax.training.flat_params import Flat
from fer_jax.training.optim.lr_multipliers import ByPath, name_of, scale_by_path

NAMES = ("adam", "adamw", "adafactor", "sgd")
# Those whose update of an element does not depend on the array it is in.
ELEMENTWISE = ("adam", "adamw", "sgd")

State = TypeVar("State")
Scalar = float | Float32[Array, ""]
_NONE: ByPath[Any] = MappingProxyType({})


class LearningRateState(NamedTuple):
  """The state of `scale_by_learning_rate`.

  Attributes:
    num_updates: updates so far.
    factor: factor of the schedule from the next update on.
    learning_rate: of the latest update; before the first, of the first.
  """

  num_updates: Int32[Array, ""]
  factor: Float32[Array, ""]
  learning_rate: Float32[Array, ""]


def create(
  config: ConfigDict,
  schedule: optax.Schedule,
  lr_multipliers: ByPath[float] = _NONE,
  moment_groups: ByPath[str] = _NONE,
  weight_decay: Scalar | None = None,
) -> optax.GradientTransformation:
  """Returns the optimizer that a configuration describes.

  `clip_norm` clips the global norm of the gradient first. With
  `accumulate_steps` = k, the gradients of k batches are averaged, clipped
  together and applied once: for a loss that is a plain mean this equals one
  batch of k times the size, except that BatchNorm sees each batch alone.

  Args:
    config: the section `optimizer` of a configuration. Its `learning_rate` is
      not used: it is in the schedule.
    schedule: the learning rate as a function of the number of updates. Its
      numbers may be traced, and so may the weight decay.
    lr_multipliers: factors of the learning rate by parameter path, other than
      1.
    moment_groups: the group of each parameter that has moments and an update
      count of its own; {} for one group.
    weight_decay: replaces the configuration's.

  Returns:
    A transformation whose `update` needs the parameters.

  Raises:
    UserError: a name is unknown or a value is out of range.
  """
  _check(config)
  if weight_decay is None:
    weight_decay = config.weight_decay
  decay = optax.add_decayed_weights(weight_decay, decay_mask)
  rate = scale_by_learning_rate(schedule)
  if lr_multipliers:
    rate = optax.chain(rate, scale_by_path(lr_multipliers))
  parts = []
  if config.clip_norm:
    parts.append(optax.clip_by_global_norm(config.clip_norm))
  if config.name == "sgd":
    parts.append(decay)
    if config.momentum:
      momentum = optax.trace(config.momentum, nesterov=config.nesterov)
      parts.append(_by_group(momentum, moment_groups))
    parts.append(rate)
  elif config.name == "adafactor":
    direction = _adafactor_direction()
    if moment_groups:
      direction = [_by_group(optax.chain(*direction), moment_groups)]
    parts += [*direction, decay, rate]
  else:
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    adam = _by_group(adam, moment_groups)
    parts += [decay, adam] if config.name == "adam" else [adam, decay]
    parts.append(rate)
  optimizer = optax.chain(*parts)
  if config.accumulate_steps == 1:
    return optimizer
  every = optax.MultiSteps(optimizer, config.accumulate_steps)
  return every.gradient_transformation()


def _by_group(
  direction: optax.GradientTransformation, groups: ByPath[str]
) -> optax.GradientTransformation:
  """Returns the same transformation with a state for each group."""
  if not groups:
    return direction
  return optax.partition(
    dict.fromkeys(groups.values(), direction),
    lambda params: jax.tree_util.tree_map_with_path(
      lambda path, _: groups[name_of(path)], params
    ),
  )


def _adafactor_direction() -> list[optax.GradientTransformation]:
  """Returns Adafactor's direction (Shazeer and Stern 2018).

  The gradient divided by the root of its running mean square, whose decay is
  1 - t ** -0.8, then clipped per array to a root mean square of 1 (section 6).
  No momentum, no scaling by the parameters, no relative step size. The mean
  square is factored into rows and columns if an array's two largest dimensions
  are at least 128; smaller kernels take as much memory as in Adam without its
  momentum.
  """
  return [
    optax.scale_by_factored_rms(
      decay_rate=0.8, min_dim_size_to_factor=128, epsilon=1e-30
    ),
    optax.clip_by_block_rms(1.0),
  ]


def _check(config: ConfigDict) -> None:
  """Raises UserError for the first value that is out of range."""
  choose("optimizer.name", config.name, NAMES)
  for field in ("weight_decay", "clip_norm"):
    value = config[field]
    ok = 0 <= value < math.inf
    require(ok, f"optimizer.{field}", value, "be a number of at least 0")
  for field in ("momentum", "b1", "b2"):
    value = config[field]
    ok = 0 <= value < 1
    require(ok, f"optimizer.{field}", value, "be at least 0 and less than 1")
  ok = 0 < config.eps < math.inf
  require(ok, "optimizer.eps", config.eps, "be a number above 0")
  steps = config.accumulate_steps
  require(steps >= 1, "optimizer.accumulate_steps", steps, "be at least 1")
  ok = not (config.name == "sgd" and config.nesterov and config.momentum == 0)
  require(
    ok,
    "optimizer.nesterov",
    config.nesterov,
    "be False if optimizer.momentum=0",
  )


def decay_mask(params: PyTree) -> PyTree:
  """Returns which arrays weight decay acts on.

  Args:
    params: a tree of parameters, named as Flax's layers name them.

  Returns:
    A tree of the same structure: True for a `kernel` of two or more dimensions,
    False for biases and the scales of normalization layers.

  >>> decay_mask({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
  {'bias': False, 'kernel': True}
  """
  if isinstance(params, Flat):
    return params.map_groups(is_decayed)
  return jax.tree_util.tree_map_with_path(
    lambda path, param: is_decayed(name_of(path), param), params
  )


def is_decayed(path: str, param: Any) -> bool:
  """Whether weight decay acts on a parameter, "conv1/kernel", of a shape."""
  return path.rpartition("/")[2] == "kernel" and len(param.shape) >= 2


def scale_by_learning_rate(
  schedule: optax.Schedule,
) -> optax.GradientTransformation:
  """Multiplies updates by minus `schedule(num_updates) * factor`.

  Args:
    schedule: the learning rate as a function of the number of updates.

  Returns:
    A transformation with the state `LearningRateState`.
  """

  def init(params: PyTree) -> LearningRateState:
    del params
    return LearningRateState(
      num_updates=jnp.zeros((), jnp.int32),
      factor=jnp.ones((), jnp.float32),
      learning_rate=jnp.array(schedule(0), jnp.float32),
    )

  def update(
    updates: PyTree, state: LearningRateState, params: PyTree = None
  ) -> tuple[PyTree, LearningRateState]:
    del params
    rate = jnp.asarray(schedule(state.num_updates), jnp.float32) * state.factor
    updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
    num_updates = optax.safe_increment(state.num_updates)
    return updates, LearningRateState(num_updates, state.factor, rate)

  return optax.GradientTransformation(init, update)


def set_rate(opt_state: State, **values: float) -> State:
  """Sets fields of the `LearningRateState`, from the next update on.

  Shapes, dtypes and devices of the arrays stay (also of a replicated state), so
  that a compiled step stays valid.

  Args:
    opt_state: the state of an optimizer made by `create`.
    **values: of `factor`, where 1 is the schedule itself, or of `num_updates`,
      how far the schedule is.

  Returns:
    The state with the new values.
  """

  def replaced(node: Any) -> Any:
    if not is_rate(node):
      return node
    arrays = {k: jnp.full_like(getattr(node, k), v) for k, v in values.items()}
    return node._replace(**arrays)

  return jax.tree.map(replaced, opt_state, is_leaf=is_rate)


def learning_rate(opt_state: Any) -> Float32[Array, "*devices"]:
  """Returns the learning rate of the latest update, on the device.

  Args:
    opt_state: the state of an optimizer made by `create`.

  Returns:
    A float32 scalar (`[n]` for a state replicated over n devices); before the
    first update, the rate of that one if the factor stays.
  """
  nodes = jax.tree.leaves(opt_state, is_leaf=is_rate)
  (state,) = [node for node in nodes if is_rate(node)]
  return state.learning_rate


def is_rate(node: Any) -> bool:
  """Returns whether a node of an optimizer's state holds the learning rate."""
  return isinstance(node, LearningRateState)
