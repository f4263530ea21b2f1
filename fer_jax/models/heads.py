"""Heads: from pooled features to logits."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import require
from fer_jax.ops.batch_norm import BatchNorm


class JiangHead(nn.Module):
  """The dense head of Jiang et al.

  Dropout, Dense 2048, ReLU6, dropout, BatchNorm, dropout, Dense 1024, ReLU6,
  BatchNorm, Dense: the layers are from section 3.5 of the paper, the places of
  the dropouts from 4.2, the activation from 3.4.

  Attributes:
    num_classes: outputs.
    dropout: of the features that come in; the two around the first BatchNorm
      drop 0.6 times as many (Jiang et al., 4.2: 0.5 and 0.3). 0 drops nothing.
    widths: outputs of the two hidden layers.
    dtype: of the hidden layers' compute; all else is float32.
    axis_name: the device axis over which BatchNorm statistics are averaged.
  """

  num_classes: int
  dropout: float = 0.5
  widths: tuple[int, int] = (2048, 1024)
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    require(
      0 <= self.dropout < 1, "model.dropout", self.dropout, "be in [0, 1)"
    )
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, drops and updates statistics."""
    x = self._drop(x.astype(self.dtype), 1.0, train)
    x = nn.relu6(nn.Dense(self.widths[0], dtype=self.dtype, name="dense1")(x))
    x = self._drop(x, 0.6, train)
    x = self._norm(x, train, "bn1")
    x = self._drop(x, 0.6, train)
    x = nn.relu6(nn.Dense(self.widths[1], dtype=self.dtype, name="dense2")(x))
    x = self._norm(x, train, "bn2")
    return nn.Dense(self.num_classes, name="fc")(x.astype(jnp.float32))

  def _drop(self, x: Array, share: float, train: bool) -> Array:
    return nn.Dropout(self.dropout * share, deterministic=not train)(x)

  def _norm(self, x: Array, train: bool, name: str) -> Array:
    return BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      axis_name=self.axis_name if train else None,
      name=name,
    )(x)
