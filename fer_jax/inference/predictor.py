"""Answers about new faces: found, cut out, batched over images, classified."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from fer_jax.data import image_reader
from fer_jax.errors import UserError
from fer_jax.faces import crop, detection
from fer_jax.inference.trained_model import Trained

Source = str | os.PathLike[str] | Image.Image | UInt8[np.ndarray, "h w ..."]


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
  """One face and what it expresses.

  Attributes:
    source: the image's path, or its place among the images.
    label: the most probable class.
    probability: of that class.
    probabilities: of every class, by name.
    box: x, y, width and height in the image, in pixels; None where the whole
      image is the face.
    score: how sure the detector is of the face; None likewise.
    crop: the face as the model was given it, uint8 `[h w c]`.
  """

  source: str
  label: str
  probability: float
  probabilities: dict[str, float]
  box: tuple[float, float, float, float] | None
  score: float | None
  crop: UInt8[np.ndarray, "h w c"]

  def to_json(self) -> dict[str, Any]:
    """Returns all but the crop, fit for JSON."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name != "crop"
    }
    fields["box"] = self.box and [round(number, 1) for number in self.box]
    return fields


@dataclasses.dataclass(frozen=True, eq=False)
class Crop:
  """A face before it is classified; see `Prediction`."""

  source: str
  image: UInt8[np.ndarray, "h w c"]
  face: detection.Face | None


class Predictor:
  """Classifies faces in images; loads the detector when it is first needed.

  Args:
    trained: the model.
    detector: finds the faces of an image; `detection.create_detector()` by default.
    tta: test-time augmentation, see `Trained.probabilities`.
  """

  def __init__(
    self,
    trained: Trained,
    detector: Any = None,
    tta: str = "none",
  ):
    self.trained = trained
    self._detector = getattr(detector, "detect", detector)
    self._tta = tta

  @property
  def class_names(self) -> tuple[str, ...]:
    """What the model tells apart."""
    return self.trained.class_names

  def predict(
    self, images: Source | Sequence[Source], detect: bool = True
  ) -> list[Prediction]:
    """Classifies every face in some images.

    Args:
      images: paths, pictures, or arrays uint8 `[h w]` or `[h w c]`; or one.
      detect: whether to look for faces and turn them upright, as
        `fer_jax.faces.alignment` does; otherwise each image is one face.

    Returns:
      A prediction for each face, image by image, the largest face first. An
      image without faces has none.

    Raises:
      UserError: an image cannot be read; `crops` and `classify` leave it to
        the caller what to do then.
    """
    if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
      images = [images]
    crops: list[Crop] = []
    for i, image in enumerate(images):
      try:
        crops.extend(self.crops(image, detect, str(i)))
      except image_reader.UnreadableError as e:
        raise UserError(f"cannot read image {i}, {_named(image)}: {e}") from e
    return list(self.classify(crops))

  def crops(
    self, image: Source, detect: bool = True, name: str = ""
  ) -> list[Crop]:
    """Cuts the faces out of one image, as the model was trained on them.

    Args:
      image: as `predict` takes it.
      detect: likewise.
      name: what an image that is no file is called.

    Raises:
      UnreadableError: the image is broken, empty or too large.
    """
    pixels = self._pixels(image)
    source = str(image) if isinstance(image, str | os.PathLike) else name
    size = min(self.trained.image_shape[:2])
    if not detect:
      return [Crop(source, image_reader.square(pixels, size), None)]
    self._detector = self._detector or detection.create_detector().detect
    return [
      Crop(source, crop.align(pixels, face, size), face)
      for face in self._detector(pixels)
    ]

  def classify(self, crops: Iterable[Crop]) -> Iterator[Prediction]:
    """Classifies faces of any number of images, in full batches.

    No more than a batch is taken from `crops` ahead of what is given back.
    """
    crops = iter(crops)
    while batch := list(itertools.islice(crops, self.trained.batch_size)):
      probabilities = self.trained.probabilities(
        np.stack([crop.image for crop in batch]), self._tta
      )
      for crop, row in zip(batch, probabilities, strict=True):
        yield self._prediction(crop, row)

  def _prediction(
    self, crop: Crop, probabilities: Float32[np.ndarray, " k"]
  ) -> Prediction:
    best = int(probabilities.argmax())
    return Prediction(
      source=crop.source,
      label=self.class_names[best],
      probability=float(probabilities[best]),
      probabilities={
        name: float(p)
        for name, p in zip(self.class_names, probabilities, strict=True)
      },
      box=crop.face.box if crop.face else None,
      score=crop.face.score if crop.face else None,
      crop=crop.image,
    )

  def _pixels(self, image: Source) -> UInt8[np.ndarray, "h w c"]:
    """An image's pixels, grey or in colour as the model was trained."""
    color = self.trained.image_shape[-1] == 3
    if isinstance(image, str | os.PathLike):
      return image_reader.read(Path(image).expanduser(), color=color)
    if isinstance(image, np.ndarray):
      if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
        raise image_reader.UnreadableError(
          f"an array must be uint8 [h w] or [h w c], not {image.dtype}"
          f" {list(image.shape)}"
        )
      image = Image.fromarray(
        image[..., 0] if image.shape[2:] == (1,) else image
      )
    pixels = np.asarray(image.convert("RGB" if color else "L"))
    return pixels if color else pixels[..., None]


def _named(image: Source) -> str:
  return str(image) if isinstance(image, str | os.PathLike) else "in memory"
