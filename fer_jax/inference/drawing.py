"""Boxes and labels drawn on images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from fer_jax import fonts
from fer_jax.inference.prediction import Prediction

_BOX = (255, 196, 0)
_INK = (20, 20, 24)
_LEAST_SIDE = 320  # smaller images are enlarged, so that text is legible


def annotated(
  image: UInt8[np.ndarray, "h w 3"],
  predictions: Sequence[Prediction],
  class_names: Sequence[str] = (),
) -> Image.Image:
  """Draws a box and a label for each face.

  Labels of a script without an installed font are numbers, see
  `fonts.drawable_labels`. Small images are enlarged.

  Args:
    image: RGB.
    predictions: of its faces; one without a box is the whole image.
    class_names: all classes, so that every image has the same font; those of
      the predictions if not given.
  """
  names = tuple(class_names) or tuple(
    sorted({name for face in predictions for name in face.probabilities})
  )
  labels = fonts.drawable_labels(names)
  picture = Image.fromarray(image)
  scale = max(1, -(-_LEAST_SIDE // max(picture.size)))
  if scale > 1:
    picture = picture.resize((picture.width * scale, picture.height * scale))
  draw = ImageDraw.Draw(picture)
  for face in predictions:
    x, y, w, h = face.box or (0, 0, *image.shape[1::-1])
    left, top, right, bottom = (scale * n for n in (x, y, x + w, y + h))
    # In proportion to the face, so that crowds stay legible.
    size = round(min(max(12, 0.22 * (right - left)), max(picture.size) / 20))
    width = max(2, size // 8)
    draw.rectangle((left, top, right, bottom), outline=_BOX, width=width)
    font = labels.font.at_size(size)
    text = f"{labels.text(face.label)} {face.probability:.0%}"
    _, _, text_width, text_height = draw.textbbox((0, 0), text, font)
    height = text_height + 4
    above = max(0, min(top - height, picture.height - height))
    left = max(0, min(left, picture.width - text_width - 8))
    draw.rectangle((left, above, left + text_width + 8, above + height), _BOX)
    draw.text((left + 4, above + 1), text, _INK, font)
  return picture
