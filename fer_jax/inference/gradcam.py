"""Maps of the places that speak for a class: Grad-CAM, and CBAM's attention.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", https://arxiv.org/abs/1610.02391
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float, Float32, Int, UInt8

from fer_jax.data import normalization
from fer_jax.errors import UserError, choose, require
from fer_jax.inference.trained_model import TrainedModel

# Maps with shorter sides are too coarse to locate anything.
_LEAST_SIDE = 6


def layers(trained: TrainedModel) -> dict[str, tuple[int, int]]:
  """Returns the layers with feature maps: name -> height, width, in order."""
  if "layers" not in trained.programs:
    trained.programs["layers"] = _layers(trained)
  return trained.programs["layers"]


def _layers(trained: TrainedModel) -> dict[str, tuple[int, int]]:
  found: dict[str, tuple[int, int]] = {}

  def note(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    out = next_fn(*args, **kwargs)
    path = context.module.path
    if len(path) == 1 and context.method_name == "__call__" and out.ndim == 4:
      found[path[0]] = out.shape[1:3]
    return out

  images = jax.ShapeDtypeStruct((1, *trained.image_shape), jnp.uint8)
  with nn.intercept_methods(note):
    # A function of its own: JAX does not trace one again that it knows.
    jax.eval_shape(lambda images: trained.logits(images), images)
  return found


def default_layer(trained: TrainedModel) -> str:
  """Returns the last layer with maps of 6 x 6 or more, else the first.

  Raises:
    UserError: the model has no layer with feature maps.
  """
  found = layers(trained)
  if not found:
    raise UserError(
      f"model {trained.config.model.name} has no layer with feature maps, as"
      " Grad-CAM needs them: a model with convolutions has"
    )
  large = [name for name, side in found.items() if min(side) >= _LEAST_SIDE]
  return large[-1] if large else next(iter(found))


class GradCam:
  """Computes how much each place of an image speaks for a class.

  One layer's feature maps are weighted by the mean gradient of the class's
  logit, summed, passed through ReLU (equations 1 and 2) and resized to the
  image. The program is compiled at the first call and used for all others.

  Args:
    trained: the model.
    layer: one of `layers`; "" is `default_layer`.

  Raises:
    UserError: there is no such layer.
  """

  def __init__(self, trained: TrainedModel, layer: str = ""):
    self.layer = layer or default_layer(trained)
    choose("layer", self.layer, layers(trained))
    self._trained = trained
    self._step = jax.jit(self._maps)

  def __call__(
    self,
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"] | None = None,
    batch_size: int = 0,
  ) -> Float32[np.ndarray, "n h w"]:
    """Returns the maps, 0 to 1 in each image.

    Args:
      images: as stored.
      labels: the classes; the predicted ones if not given.
      batch_size: images per compiled call, compiled once for each size; 0 is
        that of the model.

    Raises:
      UserError: the labels are not one class per image.
    """
    if labels is not None:
      labels = np.asarray(labels)
      _check_labels(labels, len(images), len(self._trained.class_names))
    size, out = batch_size or self._trained.batch_size, []
    for start in range(0, len(images), size):
      batch = images[start : start + size]
      chosen = None
      if labels is not None:
        chosen = _padded(labels[start : start + size], size)
      maps = self._step(
        self._trained.device_variables, _padded(batch, size), chosen
      )
      out.append(_scaled(np.asarray(maps)[: len(batch)], images.shape[1:3]))
    if not out:
      return np.zeros(images.shape[:3], np.float32)
    return np.concatenate(out)

  def _maps(
    self, variables: Any, images: Array, labels: Array | None
  ) -> Float[Array, "b h w"]:
    trained, layer = self._trained, self.layer

    def logits_of(probe: Array) -> tuple[Array, Array]:
      seen: list[Array] = []
      with nn.intercept_methods(_probed(layer, probe, seen)):
        logits = trained.logits(images, variables)
      chosen = logits.argmax(axis=-1) if labels is None else labels
      total = jnp.take_along_axis(logits, chosen[:, None], axis=-1).sum()
      return total, seen[0]

    shape = jax.eval_shape(lambda: _output(trained, layer, images, variables))
    # The gradient of what is added to the maps is that of the maps.
    gradient, maps = jax.grad(logits_of, has_aux=True)(
      jnp.zeros(shape.shape, shape.dtype)
    )
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    return nn.relu((weights * maps).astype(jnp.float32).sum(axis=-1))


def gradcam(
  trained: TrainedModel,
  images: UInt8[np.ndarray, "n h w c"],
  layer: str = "",
  labels: Int[np.ndarray, " n"] | None = None,
) -> Float32[np.ndarray, "n h w"]:
  """Returns Grad-CAM maps, 0 to 1 in each image; keeps what was compiled.

  Args:
    trained: the model.
    images: as stored.
    layer: one of `layers`; "" is `default_layer`.
    labels: the classes; the predicted ones if not given.

  Raises:
    UserError: there is no such layer, or the labels are not one class per
      image.
  """
  layer = layer or default_layer(trained)
  name = f"gradcam at {layer}"
  if name not in trained.programs:
    trained.programs[name] = GradCam(trained, layer)
  size = _batch_size(trained, len(images))
  return trained.programs[name](images, labels, size)


def attention(
  trained: TrainedModel, images: UInt8[np.ndarray, "n h w c"]
) -> dict[str, Float32[np.ndarray, "n h w"]]:
  """Returns the spatial maps of a model's CBAMs, 0 to 1 in each image.

  Returns:
    Block -> maps, in the order of `layers`; empty where the model has no
    spatial attention.
  """

  def run(variables: Any, images: Array) -> dict[str, Array]:
    images = normalization.prepare(images, **trained.config.input)
    _, state = trained.model.apply(
      variables, images, train=False, mutable=["intermediates"]
    )
    return {
      path[0]: values[0][..., 0]
      for path, values in flatten_dict(state.get("intermediates", {})).items()
      if path[-1] == "spatial_map"
    }

  if "attention" not in trained.programs:
    trained.programs["attention"] = jax.jit(run)
  size = _batch_size(trained, len(images))
  found: dict[str, list[np.ndarray]] = {name: [] for name in layers(trained)}
  for start in range(0, max(1, len(images)), size):
    batch = images[start : start + size]
    maps = trained.programs["attention"](
      trained.device_variables, _padded(batch, size)
    )
    for name, values in maps.items():
      values = np.asarray(values)[: len(batch)]
      found[name].append(_scaled(values, images.shape[1:3]))
  return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def _batch_size(trained: TrainedModel, num_images: int) -> int:
  """Returns one of few batch sizes, each of which is compiled once."""
  size = 1 << max(0, num_images - 1).bit_length()
  return min(trained.batch_size, size)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
  """Returns a batch with zeros appended up to a size."""
  rest = [(0, 0)] * (values.ndim - 1)
  return np.pad(values, [(0, size - len(values)), *rest])


def _check_labels(
  labels: Int[np.ndarray, " n"], num_images: int, num_classes: int
) -> None:
  ok = labels.shape == (num_images,)
  must = f"be ({num_images},): one class per image"
  require(ok, "labels.shape", labels.shape, must)
  ok = np.issubdtype(labels.dtype, np.integer) or not len(labels)
  require(ok, "labels.dtype", labels.dtype, "be integers")
  for i, label in enumerate(labels):
    ok = 0 <= label < num_classes
    require(ok, f"labels[{i}]", label, f"be 0 to {num_classes - 1}")


def _probed(layer: str, probe: Array, seen: list[Array]) -> Callable[..., Any]:
  """Returns an interceptor that adds `probe` to a layer's output, kept."""

  def intercept(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    out = next_fn(*args, **kwargs)
    if context.module.path == (layer,) and context.method_name == "__call__":
      seen.append(out)
      out = out + probe
    return out

  return intercept


def _output(
  trained: TrainedModel, layer: str, images: Array, variables: Any
) -> Any:
  seen: list[Array] = []
  with nn.intercept_methods(_probed(layer, jnp.zeros(()), seen)):
    trained.logits(images, variables)
  return seen[0]


def _scaled(
  maps: Float[np.ndarray, "n h w"], shape: tuple[int, ...]
) -> Float32[np.ndarray, "n h w"]:
  """Returns maps resized to the images and scaled from 0 to 1."""
  resized = np.asarray(
    jax.image.resize(maps, (len(maps), *shape), "bilinear"), np.float32
  )
  low = resized.min(axis=(1, 2), keepdims=True)
  high = resized.max(axis=(1, 2), keepdims=True)
  return (resized - low) / np.maximum(high - low, 1e-12)
