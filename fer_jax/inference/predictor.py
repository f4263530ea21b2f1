"""Predictions for images: faces found, cropped, classified in full batches."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from fer_jax.errors import UserError, choose, require
from fer_jax.evaluation import tta as views
from fer_jax.faces import detection, photo_detector
from fer_jax.faces.face import Detector
from fer_jax.inference import drawing, face_crops, prediction_stream
from fer_jax.inference.face_crops import FaceCrop, FindFaces
from fer_jax.inference.prediction import ImageResult, Prediction
from fer_jax.inference.prediction_stream import CroppedImage, NamedImage
from fer_jax.inference.trained_model import TrainedModel


class Predictor:
  """A model for images in any form; loads the detector when it is needed.

  Args:
    trained: the model.
    detector: finds the faces of an image: a detector or its name, as
      `detection.create_detector` takes it, or a function; None is the default
      detector.
    tta: test-time augmentation, see `TrainedModel.probabilities`.

  Attributes:
    trained: the model, with its Flax module, variables and preprocessing.
    tta: test-time augmentation.

  Raises:
    UserError: there is no such test-time augmentation or detector.
  """

  def __init__(
    self,
    trained: TrainedModel,
    detector: Detector | FindFaces | str | None = None,
    tta: str = "none",
  ):
    self.trained = trained
    choose("tta", tta, views.VIEWS)
    if isinstance(detector, str):
      choose("detector", detector, detection.DETECTORS)
    elif not (
      detector is None or callable(detector) or hasattr(detector, "detect")
    ):
      raise UserError(
        f"detector={detector!r:.60} must be a name, a function of an image, or"
        " an object with a method `detect`"
      )
    self._detector = detector
    self.tta = tta

  def __repr__(self) -> str:
    name = self.trained.config.model.name
    classes = ", ".join(self.class_names)
    return f"Predictor({name} in {self.trained.workdir}: {classes})"

  @property
  def class_names(self) -> tuple[str, ...]:
    """Names of the model's classes."""
    return self.trained.class_names

  def predict(
    self, images: Any, detect: bool = True, *, boxes: Any = None
  ) -> list[Prediction]:
    """Classifies every face in some images.

    Args:
      images: one image or several: paths, URLs (http, https), bytes, open
        files, PIL images, or arrays `[h w]` or `[h w 1|3|4]` of uint8, uint16
        or floats in 0..1; or a stack of images `[n h w]` or `[n h w c]`.
      detect: whether to look for faces and rotate them upright, as
        `fer_jax.faces.alignment` does; otherwise each image is one face.
      boxes: the faces, instead of looking for them: for one image a list of
        (x, y, width, height) in pixels, for several a list of such lists.

    Returns:
      A prediction for each face, image by image, in the detector's order: the
      largest first, unless it is your own. An image without faces has none.

    Raises:
      UserError: an image cannot be read, after which `stream` continues with
        the others; or a box, or what the detector returns, is invalid.
    """
    results = prediction_stream.classify_images(
      self._cropped(images, detect, boxes),
      self._classify_batch,
      self.trained.batch_size,
    )
    return [face for result in results for face in result.faces]

  def embed(
    self, images: Any, detect: bool = True, *, boxes: Any = None
  ) -> Float32[np.ndarray, "n d"]:
    """Returns the features before the classifier of every face.

    Args:
      images: as in `predict`.
      detect: as in `predict`.
      boxes: as in `predict`.

    Returns:
      One vector per face, in the order of `predict`.

    Raises:
      UserError: as in `predict`.
    """
    height, width, channels = self.trained.image_shape
    side = min(height, width)
    crops = [
      crop.image
      for image in self._cropped(images, detect, boxes)
      for crop in image.crops
    ]
    shape = (len(crops), side, side, channels)
    return self.trained.embed(np.array(crops, np.uint8).reshape(shape))

  def annotate(
    self, image: Any, detect: bool = True, *, boxes: Any = None
  ) -> Image.Image:
    """Returns an image with a box and a label drawn for each face.

    Args:
      image: one image, as in `predict`.
      detect: as in `predict`.
      boxes: as in `predict`.

    Raises:
      UserError: as in `predict`.
    """
    pixels = face_crops.read_pixels(image)
    faces = self.predict(pixels, detect, boxes=boxes)
    return drawing.annotated(pixels, faces, self.class_names)

  def explain(
    self,
    images: Any,
    detect: bool = True,
    *,
    boxes: Any = None,
    layer: str = "",
    attention: bool = False,
  ) -> Image.Image:
    """Returns each face beside the places that speak for its class.

    Args:
      images: as in `predict`.
      detect: as in `predict`.
      boxes: as in `predict`.
      layer: whose feature maps Grad-CAM uses, see `gradcam.gradcam`.
      attention: the maps of the model's CBAMs instead of Grad-CAM.

    Raises:
      UserError: as in `predict`; or there is no face, no such layer or no
        spatial attention.
    """
    from fer_jax.inference import explanation_sheets  # Slow to import.

    faces = self.predict(images, detect, boxes=boxes)
    if not faces:
      searched = detect and boxes is None
      advice = ": use detect=False or boxes" if searched else ""
      raise UserError(f"no face to explain{advice}")
    crops = np.stack([face.crop for face in faces])
    return explanation_sheets.explain(
      self.trained, crops, layer=layer, attention=attention, tta=self.tta
    )

  def stream(
    self,
    images: Iterable[Any],
    detect: bool = True,
    *,
    num_workers: int = 0,
  ) -> Iterator[ImageResult]:
    """Yields a result for each image, in order, as batches are full.

    Threads read images and look for faces ahead of what is classified; no more
    than about two images per thread are in memory.

    Args:
      images: each as in `predict`, or a `NamedImage` with the name that its
        result has.
      detect: as in `predict`.
      num_workers: threads; 0 is one per core.

    Yields:
      Results; images that cannot be read have an `error`.

    Raises:
      UserError: `images` is one image, `num_workers` is negative, or what the
        detector returns is invalid.
    """
    require(num_workers >= 0, "num_workers", num_workers, "be at least 0")
    if detect:
      self._find_faces()  # before threads would
    return prediction_stream.classify_images(
      prediction_stream.crop_images(
        prediction_stream.with_names(images),
        lambda image: self._crop(image, detect),
        num_workers,
      ),
      self._classify_batch,
      self.trained.batch_size,
    )

  def crops(
    self, image: Any, detect: bool = True, name: str = ""
  ) -> list[FaceCrop]:
    """Crops the faces of one image, as the model was trained on them.

    Args:
      image: as in `predict`.
      detect: as in `predict`.
      name: what to call the image; its path or URL if not given.

    Raises:
      UnreadableError: the image cannot be read.
    """
    source = name or face_crops.name_of(image, 0)
    return self._crop(NamedImage(source, image), detect)

  def classify(self, crops: Iterable[FaceCrop]) -> list[Prediction]:
    """Classifies faces of any number of images, in full batches."""
    crops, size = list(crops), self.trained.batch_size
    batches = (crops[i : i + size] for i in range(0, len(crops), size))
    return [face for batch in batches for face in self._classify_batch(batch)]

  def _cropped(
    self, images: Any, detect: bool, boxes: Any
  ) -> Iterator[CroppedImage]:
    """Yields images with their faces; raises for one that cannot be read."""
    named = prediction_stream.name_images(images, boxes)
    if detect and boxes is None and named:
      self._find_faces()
    cropped = prediction_stream.crop_images(
      named, lambda image: self._crop(image, detect)
    )
    for i, image in enumerate(cropped):
      if image.error:
        path = image.of.name
        where = "in memory" if path == str(i) else path
        raise UserError(
          f"cannot read image {i}, {where}: {image.error}"
        ) from image.error
      yield image

  def _crop(self, image: NamedImage, detect: bool) -> list[FaceCrop]:
    find = self._find_faces() if detect and image.boxes is None else None
    return face_crops.crop_faces(
      face_crops.read_pixels(image.image),
      image.name,
      self.trained.image_shape,
      find_faces=find,
      boxes=image.boxes,
    )

  def _find_faces(self) -> FindFaces:
    if self._detector is None or isinstance(self._detector, str):
      name = self._detector or detection.DETECTORS[0]
      self._detector = detection.create_detector(name)
    detector = self._detector
    if isinstance(detector, photo_detector.PhotoDetector):
      return detector.detect
    find = detector if callable(detector) else detector.detect
    return functools.partial(face_crops.detected_faces, find)

  def _classify_batch(self, crops: list[FaceCrop]) -> list[Prediction]:
    probabilities = self.trained.probabilities(
      np.stack([crop.image for crop in crops]), self.tta
    )
    return [
      self._prediction(crop, row)
      for crop, row in zip(crops, probabilities, strict=True)
    ]

  def _prediction(
    self, crop: FaceCrop, probabilities: Float32[np.ndarray, " k"]
  ) -> Prediction:
    best = int(probabilities.argmax())
    named = zip(self.class_names, probabilities.tolist(), strict=True)
    return Prediction(
      source=crop.source,
      label=self.class_names[best],
      probability=float(probabilities[best]),
      probabilities=dict(named),
      box=crop.face.box if crop.face else None,
      score=crop.face.score if crop.face and crop.detected else None,
      crop=crop.image,
    )
