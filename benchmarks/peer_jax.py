"""A model of this package, and the same model in plain Flax, for `peers`.

Plain Flax is this package's module with XLA's convolutions, pooling and norms,
and one compiled program per step, as in Flax's examples.
"""

import contextlib
import math
from pathlib import Path
from typing import Any

import depth_worker
import jax
import jax.numpy as jnp
import memory
import numpy as np
import optax
import peer_worker
import safetensors.numpy
import timing
from flax.traverse_util import flatten_dict, unflatten_dict

from fer_jax import models
from fer_jax.models import registry
from fer_jax.ops import dispatch
from fer_jax.training.runtime import cpu


class JaxPeer:
  """See `peer_worker.Peer`."""

  def __init__(self, case: dict[str, Any]):
    self._case = case
    self._plain = case["library"] == "flax"
    cpu.configure_malloc()  # as commands do
    weights = Path(case["weights"])
    if not weights.is_file():
      safetensors.numpy.save_file(self._random_weights(), weights)
    params = self._variables()["params"]
    self.num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.platform = jax.default_backend()
    self.device = jax.devices()[0].device_kind
    self._call: Any = None
    self._out: Any = None

  def check(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the loss of a batch and the norm of its gradient."""
    name = self._case["model"]
    has_dropout = "dropout" in registry.options_of(name)
    model = self._model("float32", {"dropout": 0.0} if has_dropout else {})
    others = self._variables()
    params = others.pop("params")

    def loss_fn(params: Any) -> jax.Array:
      logits, _ = model.apply(
        {"params": params, **others}, images, train=True, mutable=list(others)
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean()

    with self._lowering():
      loss, gradient = jax.jit(jax.value_and_grad(loss_fn))(params)
    return {
      "loss": float(loss),
      "gradient": float(optax.tree.norm(gradient)),
    }

  def start(self, work: str) -> None:
    """Prepares the steps; compilation happens at the first one."""
    self._call = self._out = None
    jax.clear_caches()
    training = work == peer_worker.TRAINING
    self._call = self._training() if training else self._inference(work)

  def step(self) -> None:
    """Starts a step."""
    with self._lowering():  # Steps are traced when first called.
      self._out = self._call()

  def wait(self) -> None:
    """Waits for the last step."""
    jax.block_until_ready(self._out)

  def reset_peak_memory(self) -> None:
    """Resets the peak, on CPU."""
    memory.reset_peak()

  def peak_memory(self) -> int:
    """Returns the peak memory in bytes."""
    return timing.peak_memory()

  def _lowering(self) -> contextlib.AbstractContextManager[None]:
    if self._plain:
      return dispatch.use_xla()
    return contextlib.nullcontext()

  def _variables(self) -> dict[str, Any]:
    """Returns the weights that all peers share."""
    weights = safetensors.numpy.load_file(self._case["weights"])
    return unflatten_dict(weights, sep="/")

  def _model(self, dtype: str, options: dict[str, Any] | None = None) -> Any:
    return models.create(
      self._case["model"],
      peer_worker.NUM_CLASSES,
      **(options or {}),
      dtype=dispatch.compute_dtype(dtype),
    )

  def _random_weights(self) -> dict[str, np.ndarray]:
    """Returns random weights by path, also for norms and biases."""
    size = self._case["image_size"]
    x = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    with dispatch.use_xla():  # the fastest to trace
      variables = jax.eval_shape(
        self._model("float32").init, jax.random.key(0), x
      )
    rng = np.random.default_rng(0)
    weights = {}
    for path, leaf in flatten_dict(variables, sep="/").items():
      if path.endswith(("/scale", "/var")):
        array = rng.uniform(0.5, 1.5, leaf.shape)
      elif path.endswith("/kernel"):  # He et al. 2015
        fan_in = math.prod(leaf.shape[:-1])
        array = rng.normal(0, math.sqrt(2 / fan_in), leaf.shape)
      else:
        array = rng.normal(0, 0.1, leaf.shape)
      weights[path] = array.astype(np.float32)
    return weights

  def _training(self) -> Any:
    with self._lowering():  # An accelerator's state and data are packed.
      run = depth_worker.Run(
        {**self._case, "channels": 1, "parallel": "jit", "steps_per_call": 1}
      )
    if self._plain:
      run.train = jax.jit(run.train_step.__call__, donate_argnums=0)
    return run.step

  def _inference(self, work: str) -> Any:
    size = peer_worker.images_of(work, self._case["batch_size"])
    images, _ = peer_worker.batch(size, self._case["image_size"])
    images, variables = jax.device_put((images, self._variables()))
    apply = jax.jit(self._model(self._case["dtype"]).apply)
    return lambda: apply(variables, images)


def create(case: dict[str, Any]) -> JaxPeer:
  """Returns the peer of a case."""
  return JaxPeer(case)
