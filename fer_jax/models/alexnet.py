"""AlexNet-like network of Sutton: five convolutions, three dense layers.

The paper states the kernel size (3x3), the channels of the second convolution
(96) and of the fifth (256) and the dense layers (512, 256), and refers to
AlexNet (Krizhevsky et al. 2012) for the rest. The other channels, the padding
of 1 and the 2x2 pooling are our choice.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import require
from fer_jax.models.layers import Dropout, check_dropout
from fer_jax.ops import convolution

WIDTHS = (64, 96, 192, 192, 256)  # channels of the convolutions
DENSE = (512, 256)  # outputs of the hidden dense layers
POOLED = (1, 2, 5)  # numbers of the convolutions followed by max pooling

# He et al. 2015: normal, scaled by the number of inputs.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class AlexNet(nn.Module):
  """Plain convolutional network on images of 8 pixels or more.

  The first dense layer depends on the image size: a network trained at one
  size cannot be applied at another.

  Attributes:
    num_classes: number of classes, the size of the logits.
    dropout: dropout rate of the two hidden dense layers. Paper: it states
      none; Krizhevsky et al. (4.2) use 0.5 there.
    dtype: dtype of the compute; parameters and logits are float32.
    axis_name: device axis over which the batch is divided, or None.
  """

  num_classes: int
  dropout: float = 0.0
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    check_dropout(self.dropout)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; if `train`, uses the RNG stream "dropout"."""
    size = min(x.shape[1:3])
    must = "be at least 8: the model halves it three times"
    require(size >= 8, "input.image_size", size, must)
    x = x.astype(self.dtype)
    for i, width in enumerate(WIDTHS, start=1):
      x = convolution.Conv(
        width,
        (3, 3),
        padding=1,
        dtype=self.dtype,
        kernel_init=kernel_init,
        name=f"conv{i}",
      )(x)
      x = nn.relu(x)
      if i in POOLED:
        x = convolution.max_pool(x, (2, 2), (2, 2))
    x = x.reshape(x.shape[0], -1)
    for i, width in enumerate(DENSE, start=1):
      x = nn.Dense(
        width, dtype=self.dtype, kernel_init=kernel_init, name=f"fc{i}"
      )(x)
      x = Dropout(self.dropout, self.axis_name)(nn.relu(x), train)
    return nn.Dense(self.num_classes, name="fc3")(x.astype(jnp.float32))
