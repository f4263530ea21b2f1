"""This package's model, and the same one in plain Flax, for `peers`.

Plain Flax is this package's module with XLA's own convolutions and pooling,
and one compiled program a step, as in Flax's examples.
"""

import contextlib
from pathlib import Path
from typing import Any

import depth_worker
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peer_worker

from fer_jax import models
from fer_jax.models import lowerings, ops
from fer_jax.pretrained import convert_file


class JaxPeer:
  """See `peer_worker.Peer`."""

  def __init__(self, case: dict[str, Any]):
    self._case = case
    self._plain = case["library"] == "flax"
    self.variants = {dtype: dtype for dtype in case["dtypes"]}
    self.versions = {"jax": jax.__version__}
    self._options: dict[str, Any] = {}
    weights = Path(case["weights"])
    if weights.is_file():
      self._variables, info = convert_file(weights, case["model"], channels=1)
      self._options = info["options"] | case["options"]
    else:
      size = case["image_size"]
      self._variables = jax.jit(self._model("float32").init)(
        jax.random.key(0), jnp.zeros((1, size, size, 1))
      )
    self.num_parameters = sum(
      leaf.size for leaf in jax.tree.leaves(self._variables["params"])
    )
    self._calls: dict[tuple[str, str], Any] = {}
    self._call: Any = None
    self._out: Any = None

  def loss(self, images: np.ndarray, labels: np.ndarray) -> float:
    """The mean loss of a batch in evaluation."""
    with self._lowering():
      logits = jax.jit(self._model("float32").apply)(self._variables, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return float(losses.mean())

  def start(self, variant: str, work: str) -> None:
    """Makes ready; what compiles does so at the first step."""
    key = (variant, work)
    if key not in self._calls:
      training = work == peer_worker.TRAINING
      self._calls[key] = (
        self._training(variant) if training else self._inference(variant, work)
      )
    self._call = self._calls[key]

  def step(self) -> None:
    """Starts one."""
    with self._lowering():  # Steps are traced when first called.
      self._out = self._call()

  def wait(self) -> None:
    """Waits for the last one."""
    jax.block_until_ready(self._out)

  def _lowering(self) -> contextlib.AbstractContextManager[None]:
    if self._plain:
      return ops.use(ops.Rule.all(lowerings.native))
    return contextlib.nullcontext()

  def _model(self, dtype: str) -> Any:
    return models.create(
      self._case["model"],
      peer_worker.NUM_CLASSES,
      **self._options,
      dtype=jnp.dtype(dtype),
    )

  def _training(self, dtype: str) -> Any:
    run = depth_worker.Run(
      {
        **self._case,
        "dtype": dtype,
        "channels": 1,
        "options": self._options,
        "parallel": "jit",
        "steps_per_call": 1,
      }
    )
    if self._plain:
      run.train = jax.jit(run.steps.train, donate_argnums=0)
    return run.step

  def _inference(self, dtype: str, work: str) -> Any:
    size = peer_worker.images_of(work, self._case["batch_size"])
    images, _ = peer_worker.batch(size, self._case["image_size"])
    images, variables = jax.device_put((images, self._variables))
    apply = jax.jit(self._model(dtype).apply)
    return lambda: apply(variables, images)


def create(case: dict[str, Any]) -> JaxPeer:
  """The peer of a case."""
  return JaxPeer(case)
