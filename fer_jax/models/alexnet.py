"""The AlexNet-like network of Sutton: five convolutions, three dense layers.

The paper gives the kernels (3x3), those of the second convolution (96) and of
the fifth (256), the dense layers (512, 256), and AlexNet (Krizhevsky et al.
2012) for the rest. The other widths, the padding of 1 and the 2x2 pools are
ours.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import require
from fer_jax.ops import convolution

WIDTHS = (64, 96, 192, 192, 256)
DENSE = (512, 256)
POOLED = (1, 2, 5)  # convolutions followed by a max pool

# He et al. 2015: normal, by the number of inputs.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class AlexNet(nn.Module):
  """A plain convolutional network on images of 8 pixels or more.

  The first dense layer is as large as the image: a network trained at one
  size does not take another.

  Attributes:
    num_classes: outputs.
    dropout: the share of the two hidden dense layers' outputs dropped in
      training. Paper: it states none; Krizhevsky et al. (4.2) drop 0.5 there.
    dtype: of the compute; parameters and logits are float32.
    axis_name: of no use here, where no batch is normalised.
  """

  num_classes: int
  dropout: float = 0.0
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    must = "be at least 0 and less than 1"
    require(0 <= self.dropout < 1, "model.dropout", self.dropout, must)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, the stream "dropout" is drawn."""
    size = min(x.shape[1:3])
    must = "be at least 8 for a model that halves it three times"
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
      x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
    return nn.Dense(self.num_classes, name="fc3")(x.astype(jnp.float32))
