"""Answers about one picture, as JSON: its faces, what they express, and why."""

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
from fer_jax.errors import UserError
from fer_jax.faces import detection
from fer_jax.inference import explanation_sheets
from fer_jax.inference.gradcam import GradCam
from fer_jax.inference.predictor import Prediction, Predictor
from fer_jax.pretrained import released

# Faces classified at once: a picture has few, and each call pays for all.
_BATCH_SIZE = 8


class RefusedError(Exception):
  """A picture that gets no answer.

  Attributes:
    status: of HTTP.
    message: one sentence for the page: what is wrong, and the way out.
  """

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status
    self.message = message


class Answerer:
  """Answers about pictures, with programs compiled once.

  Args:
    predictor: classifies, and finds faces.
    finds_faces: whether it can: without the extra `faces` it cannot.
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
    """Compiles, so that the first answer is as quick as the others."""
    file = io.BytesIO()
    Image.new("L", (96, 96)).save(file, "PNG")
    self.answer(file.getvalue(), detect=False)

  def describe(self) -> dict[str, Any]:
    """What the page says of the model, fit for JSON."""
    trained = self._predictor.trained
    return {
      "name": trained.config.model.name,
      "dataset": trained.config.dataset.name,
      "checkpoint": trained.checkpoint,
      "epoch": trained.epoch,
      "classes": list(trained.class_names),
      "detection": self.finds_faces,
    }

  def answer(
    self, content: bytes, *, detect: bool = True, explain: bool = True
  ) -> dict[str, Any]:
    """Answers about one picture.

    Args:
      content: of its file.
      detect: whether to look for faces; otherwise it is one.
      explain: whether to say where the model looks.

    Returns:
      Fit for JSON: `width` and `height` in pixels, upright; `seconds`; and of
      each face, the largest first, `label`, `probability`, `probabilities`,
      `box` and `score` as a `Prediction` has them, `crop` and `gradcam` as
      PNGs in data URLs, and `located`, whether any place speaks for the label
      (`gradcam` and `located` are None if not asked for).

    Raises:
      RefusedError: it cannot be read, or faces cannot be found here.
    """
    started = time.monotonic()
    if detect and not self.finds_faces:
      raise RefusedError(
        422,
        "Finding faces needs the optional extra: pip install -e '.[faces]' and"
        " start again, or turn it off.",
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

  def _read(self, content: bytes) -> UInt8[np.ndarray, "h w c"]:
    if not content:
      raise RefusedError(400, "The file is empty: choose another picture.")
    color = self._predictor.trained.image_shape[-1] == 3
    try:
      return image_reader.read(io.BytesIO(content), color=color)
    except image_reader.UnreadableError as e:
      if isinstance(e, image_reader.UnknownFormatError):
        raise RefusedError(
          415,
          "This is not a picture that can be read here: choose a JPEG, PNG,"
          " WebP, GIF, BMP or TIFF file.",
        ) from e
      if isinstance(e, image_reader.TooLargeError):
        raise RefusedError(
          422, "The picture has too many pixels: choose a smaller one."
        ) from e
      raise RefusedError(
        422, f"The picture is damaged ({e}): choose another one."
      ) from e

  def _maps(
    self, found: Sequence[Prediction]
  ) -> Iterable[Float32[np.ndarray, "h w"]]:
    """How much each place of each face speaks for its label."""
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
    look = explanation_sheets.overlay(prediction.crop, values)
    fields |= {"gradcam": _data_url(look), "located": bool(values.any())}
  return fields


def _data_url(image: UInt8[np.ndarray, "h w c"]) -> str:
  file = io.BytesIO()
  pixels = image[..., 0] if image.shape[2] == 1 else image
  Image.fromarray(pixels).save(file, "PNG")
  return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
