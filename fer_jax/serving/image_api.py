"""Analyzes one image: its faces, their expressions, and Grad-CAM, as JSON."""

import base64
import io
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from fer_jax.data import image_reader
from fer_jax.data.image_arrays import to_pillow
from fer_jax.errors import UserError
from fer_jax.faces import detection
from fer_jax.inference import explanation_sheets
from fer_jax.inference.gradcam import GradCam
from fer_jax.inference.predictor import Prediction, Predictor
from fer_jax.pretrained import released

# Faces classified at once: an image has few, and each call costs the same.
_BATCH_SIZE = 8
# Images are decoded one at a time; 4 bytes per pixel, and as much again.
MAX_PIXELS = 50_000_000


class RequestError(Exception):
  """A request that is refused.

  Attributes:
    status: HTTP status code.
    message: one sentence for the page: what is wrong, and the way out.
  """

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status
    self.message = message


class ImageApi:
  """Analyzes images, with programs compiled once.

  Args:
    predictor: finds and classifies faces.
    finds_faces: whether it has a detector: that needs the extra `faces`.
  """

  def __init__(self, predictor: Predictor, finds_faces: bool = True):
    self.finds_faces = finds_faces
    self._predictor = predictor
    self._gradcam = GradCam(predictor.trained)

  @classmethod
  def load(
    cls, workdir: str | os.PathLike[str] | None, checkpoint: str = "best"
  ) -> Self:
    """Loads a run's model, and the detector if it is installed.

    Args:
      workdir: of the run, or a released model's name; None is a released one.
      checkpoint: "best" or "latest".

    Raises:
      UserError: there is no such checkpoint.
    """
    trained = released.load_model(workdir, checkpoint, _BATCH_SIZE)
    try:
      detector = detection.create_detector()
    except UserError:
      return cls(Predictor(trained), finds_faces=False)
    return cls(Predictor(trained, detector))

  def warm_up(self) -> None:
    """Compiles, so that the first analysis is as fast as the others."""
    file = io.BytesIO()
    Image.new("L", (96, 96)).save(file, "PNG")
    self.analyze(file.getvalue(), detect=False)

  def describe(self) -> dict[str, Any]:
    """Returns what the page shows of the model, as JSON values."""
    trained = self._predictor.trained
    return {
      "name": trained.config.model.name,
      "dataset": trained.config.dataset.name,
      "checkpoint": trained.checkpoint,
      "epoch": trained.epoch,
      "classes": list(trained.class_names),
      "detection": self.finds_faces,
    }

  def analyze(
    self, content: bytes, *, detect: bool = True, explain: bool = True
  ) -> dict[str, Any]:
    """Analyzes one image.

    Args:
      content: of its file.
      detect: whether to detect faces; otherwise the image is one face.
      explain: whether to compute Grad-CAM.

    Returns:
      JSON values: `width` and `height` in pixels, upright; `seconds`; and for
      each face, the largest first, `label`, `probability`, `probabilities`,
      `box` and `score` as in `Prediction`, `crop` and `gradcam` as PNGs in data
      URLs, and `located`, whether any region supports the label (`gradcam` and
      `located` are None without `explain`).

    Raises:
      RequestError: it cannot be read, or there is no face detector.
    """
    started = time.monotonic()
    if detect and not self.finds_faces:
      raise RequestError(
        422,
        "Detecting faces needs an optional extra: pip install"
        " 'fer_jax[faces]' and restart the demo, or turn it off.",
      )
    pixels = self._read(content)
    crops = self._predictor.crops(pixels, detect)
    found = list(self._predictor.classify(crops))
    maps = self._maps(found) if explain else [None] * len(found)
    height, width, _ = pixels.shape
    return {
      "width": width,
      "height": height,
      "faces": [
        _face(prediction, values)
        for prediction, values in zip(found, maps, strict=True)
      ],
      "seconds": time.monotonic() - started,
    }

  def _read(self, content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    if not content:
      raise RequestError(400, "The file is empty: choose another picture.")
    try:
      return image_reader.read(content, color=True, max_pixels=MAX_PIXELS)
    except image_reader.UnreadableError as e:
      if isinstance(e, image_reader.UnknownFormatError):
        raise RequestError(
          415,
          "This is not a picture that can be read here: choose a JPEG, PNG,"
          " WebP, GIF, BMP or TIFF file.",
        ) from e
      if isinstance(e, image_reader.TooLargeError):
        raise RequestError(
          422,
          f"The picture has more than {MAX_PIXELS // 10**6} megapixels: choose"
          " a smaller one.",
        ) from e
      raise RequestError(
        422, f"The picture is damaged ({e}): choose another one."
      ) from e

  def _maps(
    self, found: Sequence[Prediction]
  ) -> Iterable[Float32[np.ndarray, "h w"]]:
    """Returns how much each region of each face supports its label."""
    if not found:
      return []
    names = self._predictor.class_names
    return self._gradcam(
      np.stack([prediction.crop for prediction in found]),
      np.array([names.index(prediction.label) for prediction in found]),
    )


def _face(
  prediction: Prediction, values: Float32[np.ndarray, "h w"] | None
) -> dict[str, Any]:
  fields = prediction.to_json()
  del fields["source"]
  fields |= {"crop": _data_url(prediction.crop), "gradcam": None}
  fields["located"] = None
  if values is not None:
    overlay = explanation_sheets.overlay(prediction.crop, values)
    fields |= {"gradcam": _data_url(overlay), "located": bool(values.any())}
  return fields


def _data_url(image: UInt8[np.ndarray, "h w c"]) -> str:
  file = io.BytesIO()
  to_pillow(image).save(file, "PNG")
  return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
