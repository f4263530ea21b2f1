"""Contact sheets of where a model looks."""

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fer_jax.data.inspect import image_sheets
from fer_jax.data.views import labels_of
from fer_jax.errors import UserError
from fer_jax.inference import gradcam
from fer_jax.inference.trained_model import Trained

_OPACITY = 0.45  # of the map over the image


def explain(
  trained: Trained,
  images: UInt8[np.ndarray, "n h w c"],
  targets: np.ndarray | None = None,
  *,
  layer: str = "",
  attention: bool = False,
) -> Image.Image:
  """Draws each image beside what the model looks at in it.

  Args:
    trained: the model.
    images: as stored.
    targets: labels or distributions, for the captions, if they are known.
    layer: whose maps, see `gradcam.gradcam`.
    attention: the maps of the model's CBAMs instead, one picture a block.

  Raises:
    UserError: there is no such layer, or the model has no spatial attention.
  """
  if attention:
    maps = gradcam.attention(trained, images)
    if not maps:
      raise UserError(
        f"--attention: model {trained.config.model.name} in {trained.workdir}"
        " has no spatial attention; a cbam_resnet has"
      )
    title = "maps of spatial attention (CBAM), block by block"
  else:
    layer = layer or gradcam.default_layer(trained)
    maps = {layer: gradcam.gradcam(trained, images, layer)}
    title = f"Grad-CAM at {layer}"
  probabilities = trained.probabilities(images)
  labels = None if targets is None else labels_of(targets)
  groups = []
  for i, image in enumerate(images):
    best = int(probabilities[i].argmax())
    caption = f"{trained.class_names[best]} {probabilities[i, best]:.0%}"
    if labels is not None:
      caption += f"\ntrue: {trained.class_names[labels[i]]}"
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
  """Lays a map over an image, as colours from dark (0) to bright (1)."""
  colours = matplotlib.colormaps["inferno"](values)[..., :3] * 255
  mixed = (1 - _OPACITY) * image + _OPACITY * colours
  return mixed.round().astype(np.uint8)
