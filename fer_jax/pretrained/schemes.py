"""Naming schemes of reference weights, by model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from fer_jax.errors import choose
from fer_jax.models import resnet
from fer_jax.pretrained import mobilenet_names, resnet_names
from fer_jax.pretrained.layouts import KERAS, TORCH, Layout

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Mean and standard deviation of ImageNet's red, green and blue in 0..1, as in
# torchvision, timm and transformers; TensorFlow's models take -1 to 1.
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MINUS_ONE_TO_ONE: Statistics = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

TENSORFLOW_OPTIONS = {"padding": "tensorflow", "norm_epsilon": 1e-3}


@dataclasses.dataclass(frozen=True)
class Scheme:
  """Storage of one model in one library.

  Attributes:
    name: name of the library.
    layout: names and axes of its tensors.
    layers: returns {our layer: its name in the library}.
    statistics: mean and standard deviation of the channels in training. Some
      published weights have others: see their publisher's page.
    options: options of our model for outputs equal to the reference's.
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
  """Returns the naming schemes of a model's published weights.

  Raises:
    UserError: there are no published weights for the model.
  """
  return SCHEMES[choose("model with reference weights", model, SCHEMES)]
