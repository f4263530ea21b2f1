"""The naming schemes of reference weights, by model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from fer_jax.errors import choose
from fer_jax.models import resnet
from fer_jax.pretrained import mobilenet_names, resnet_names
from fer_jax.pretrained.layouts import KERAS, TORCH, Layout

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Mean and deviation of ImageNet's red, green and blue on 0..1, as torchvision,
# timm and transformers have them; TensorFlow's models take -1 to 1.
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MINUS_ONE_TO_ONE: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

TENSORFLOW_OPTIONS = {"padding": "tensorflow", "norm_epsilon": 1e-3}


@dataclasses.dataclass(frozen=True)
class Scheme:
  """How one library stores one model.

  Attributes:
    name: of the library.
    layout: names and axes of its tensors.
    layers: gives {our layer: its name there}.
    statistics: mean and deviation of the channels it was trained on. Weights
      of some recipes have others: the publisher's page tells.
    options: of our model, for the same outputs.
  """

  name: str
  layout: Layout
  layers: Callable[[], dict[str, str]]
  statistics: Statistics = IMAGENET
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _resnet(name: str) -> tuple[Scheme, ...]:
  sizes, block = resnet.DEPTHS[name]
  num_convs = 2 if block is resnet.BasicBlock else 3
  return tuple(
    Scheme(library, TORCH, functools.partial(layers, sizes, num_convs))
    for library, layers in (
      ("torchvision", resnet_names.torchvision),
      ("hugging_face", resnet_names.hugging_face),
    )
  )


SCHEMES: dict[str, tuple[Scheme, ...]] = {
  **{name: _resnet(name) for name in resnet.DEPTHS},
  "mobilenet": (
    Scheme("timm", TORCH, mobilenet_names.v1_timm, MINUS_ONE_TO_ONE),
    Scheme(
      "hugging_face",
      TORCH,
      mobilenet_names.v1_hugging_face,
      MINUS_ONE_TO_ONE,
      TENSORFLOW_OPTIONS,
    ),
    Scheme(
      "keras",
      KERAS,
      mobilenet_names.v1_keras,
      MINUS_ONE_TO_ONE,
      TENSORFLOW_OPTIONS,
    ),
  ),
  "mobilenet_v2": (
    Scheme("torchvision", TORCH, mobilenet_names.v2_torchvision),
    Scheme("timm", TORCH, mobilenet_names.v2_timm),
    Scheme(
      "hugging_face",
      TORCH,
      mobilenet_names.v2_hugging_face,
      MINUS_ONE_TO_ONE,
      TENSORFLOW_OPTIONS,
    ),
    *(
      Scheme(name, KERAS, layers, MINUS_ONE_TO_ONE, TENSORFLOW_OPTIONS)
      for name, layers in (
        ("keras", mobilenet_names.v2_keras),
        ("keras_2018", mobilenet_names.v2_keras_2018),
      )
    ),
  ),
}


def schemes_of(model: str) -> tuple[Scheme, ...]:
  """The schemes in which a model's weights are published.

  Raises:
    UserError: there are none.
  """
  return SCHEMES[choose("model with reference weights", model, SCHEMES)]
