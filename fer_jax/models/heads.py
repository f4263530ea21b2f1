"""Heads: networks from pooled features to logits."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.models.layers import Dropout, check_dropout, make_layers


class JiangHead(nn.Module):
  """Dense head of Jiang et al.

  Dropout, Dense 2048, ReLU6, dropout, BatchNorm, dropout, Dense 1024, ReLU6,
  BatchNorm, Dense: the layers are those of the paper's section 3.5, the
  positions of the dropouts those of 4.2, the activation that of 3.4.

  Attributes:
    num_classes: number of classes, the size of the logits.
    dropout: rate of the first dropout; the two around the first BatchNorm drop
      0.6 times as many (Jiang et al., 4.2: 0.5 and 0.3). 0 for no dropout.
    widths: outputs of the two hidden layers.
    dtype: dtype of the hidden layers' compute; the logits are float32.
    axis_name: device axis over which the batch is divided, or None.
  """

  num_classes: int
  dropout: float = 0.5
  widths: tuple[int, int] = (2048, 1024)
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    check_dropout(self.dropout)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; if `train`, drops and updates statistics."""
    _, norm = make_layers(train, self.dtype, self.axis_name)
    x = x.astype(self.dtype)
    x = Dropout(self.dropout, self.axis_name)(x, train)
    x = nn.relu6(nn.Dense(self.widths[0], dtype=self.dtype, name="dense1")(x))
    x = Dropout(self.dropout * 0.6, self.axis_name)(x, train)
    x = norm(name="bn1")(x)
    x = Dropout(self.dropout * 0.6, self.axis_name)(x, train)
    x = nn.relu6(nn.Dense(self.widths[1], dtype=self.dtype, name="dense2")(x))
    x = norm(name="bn2")(x)
    return nn.Dense(self.num_classes, name="fc")(x.astype(jnp.float32))
