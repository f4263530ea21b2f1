"""Sheets of images beside the places that speak for a class."""

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fer_jax import fonts
from fer_jax.data.inspect import image_sheets
from fer_jax.data.views import labels_of
from fer_jax.errors import UserError
from fer_jax.inference import gradcam
from fer_jax.inference.trained_model import TrainedModel

_OPACITY = 0.45  # of the map over the image


def explain(
  trained: TrainedModel,
  images: UInt8[np.ndarray, "n h w c"],
  targets: np.ndarray | None = None,
  *,
  layer: str = "",
  attention: bool = False,
  tta: str = "none",
) -> Image.Image:
  """Draws each image beside the places that speak for its class.

  Args:
    trained: the model.
    images: as stored.
    targets: labels or distributions, for the captions, if they are known.
    layer: whose feature maps Grad-CAM uses, see `gradcam.gradcam`.
    attention: the maps of the model's CBAMs instead, one picture per block.
    tta: test-time augmentation by which the classes are predicted; the maps are
      those of the image itself, for these classes.

  Raises:
    UserError: there is no such layer, or the model has no spatial attention.
  """
  probabilities = trained.probabilities(images, tta)
  predicted = probabilities.argmax(axis=1)
  if attention:
    maps = gradcam.attention(trained, images)
    if not maps:
      raise UserError(
        f"attention=True: model {trained.config.model.name} in"
        f" {trained.workdir} has no spatial attention; a cbam_resnet has"
      )
    title = "spatial attention maps (CBAM) of each block"
  else:
    layer = layer or gradcam.default_layer(trained)
    maps = {layer: gradcam.gradcam(trained, images, layer, predicted)}
    title = f"Grad-CAM at {layer}"
  labels = None if targets is None else labels_of(targets)
  names = fonts.drawn_names(trained.class_names)
  groups = []
  for i, image in enumerate(images):
    best = predicted[i]
    caption = f"{names[best]} {probabilities[i, best]:.0%}"
    if labels is not None:
      caption += f"\ntrue: {names[labels[i]]}"
    pictures = [(image, caption)]
    pictures += [
      (overlay(image, values[i]), name if attention else "")
      for name, values in maps.items()
    ]
    groups.append(("", pictures))
  return image_sheets.group_sheet(
    groups, title=f"{trained.config.model.name}: {title}"
  )


def overlay(
  image: UInt8[np.ndarray, "h w c"], values: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
  """Blends a map with an image, as colors from dark (0) to bright (1)."""
  colors = matplotlib.colormaps["inferno"](values)[..., :3] * 255
  mixed = (1 - _OPACITY) * image + _OPACITY * colors
  return mixed.round().astype(np.uint8)
