"""Adam and AdamW by the CPU kernel, on the state of the optimizers of optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from fer_jax.ops import cpu_adam
from fer_jax.training.flat_params import Flat
from fer_jax.training.optim import optimizers


def apply(
  config: ConfigDict,
  schedule: optax.Schedule,
  weight_decay: optimizers.Scalar,
  gradients: PyTree,
  opt_state: PyTree,
  params: PyTree,
) -> tuple[PyTree, PyTree]:
  """Updates parameters as the optimizer of `optimizers.create` does.

  Args:
    config: as for `optimizers.create`, for which `supports` is true.
    schedule: as for `optimizers.create`.
    weight_decay: as for `optimizers.create`.
    gradients: of the parameters.
    opt_state: the state of the optimizer.
    params: the parameters.

  Returns:
    The new parameters and the new state.
  """
  nodes = jax.tree.leaves(opt_state, is_leaf=_is_adam_or_rate)
  (adam,) = [node for node in nodes if isinstance(node, optax.ScaleByAdamState)]
  (rate,) = [node for node in nodes if optimizers.is_rate(node)]
  _, rate = optimizers.scale_by_learning_rate(schedule).update({}, rate)
  count = optax.safe_increment(adam.count)
  numbers = [
    rate.learning_rate,
    weight_decay,
    1 / (1 - config.b1**count),
    1 / (1 - config.b2**count),
  ]
  params, mu, nu = cpu_adam.update(
    jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers]),
    params,
    (adam.mu, adam.nu),
    gradients,
    optimizers.decay_mask(params),
    b1=config.b1,
    b2=config.b2,
    epsilon=config.eps,
    decoupled=config.name == "adamw",
  )
  new: dict[type, Any] = {
    optax.ScaleByAdamState: optax.ScaleByAdamState(count, mu, nu),
    optimizers.LearningRateState: rate,
  }
  return params, jax.tree.map(
    lambda node: new.get(type(node), node), opt_state, is_leaf=_is_adam_or_rate
  )


def supports(config: ConfigDict, params: PyTree) -> bool:
  """Returns whether `apply` can update parameters.

  It takes all parameters alike: no `lr_multipliers`, no `moment_groups`.
  """
  return (
    config.name in ("adam", "adamw")
    and not config.clip_norm
    and config.accumulate_steps == 1
    and not isinstance(params, Flat)
    and cpu_adam.supports(params)
  )


def _is_adam_or_rate(node: Any) -> bool:
  return isinstance(node, optax.ScaleByAdamState) or optimizers.is_rate(node)
