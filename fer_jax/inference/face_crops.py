"""Faces of images, cropped as a model takes them: read, detected, aligned."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fer_jax.data import image_arrays, image_reader
from fer_jax.errors import UserError, require
from fer_jax.faces import crop
from fer_jax.faces.face import Face
from fer_jax.inference import web_images

Boxes = Iterable[Any]  # of Face, or x, y, width, height
FindFaces = Callable[[UInt8[np.ndarray, "h w 3"]], list[Face]]


@dataclasses.dataclass(frozen=True, eq=False)
class FaceCrop:
  """A face before it is classified.

  Attributes:
    source: the image it is from.
    image: as the model takes it.
    face: where it is; None if it is the whole image.
    detected: whether a detector found it.
  """

  source: str
  image: UInt8[np.ndarray, "h w c"]
  face: Face | None
  detected: bool = True


def crop_faces(
  pixels: UInt8[np.ndarray, "h w 3"],
  source: str,
  image_shape: tuple[int, int, int],
  *,
  find_faces: FindFaces | None = None,
  boxes: Boxes | None = None,
) -> list[FaceCrop]:
  """Crops the faces of one image.

  Args:
    pixels: RGB; detectors find more in color, whatever the model takes.
    source: what to call the image.
    image_shape: height, width and channels that the model takes.
    find_faces: a detector's method; without it and boxes, the image is a face.
    boxes: the faces instead of a detector's, see `faces_of`.

  Raises:
    UserError: a box is invalid.
  """
  size, channels = min(image_shape[:2]), image_shape[2]
  if boxes is not None:
    faces: Sequence[Face | None] = faces_of(boxes, pixels.shape[:2])
  elif find_faces is not None:
    faces = find_faces(pixels)
  else:
    faces = [None]
  out = []
  for face in faces:
    image = (
      crop.align(pixels, face, size)
      if face
      else image_reader.square(pixels, size)
    )
    if channels == 1:
      image = np.asarray(Image.fromarray(image).convert("L"))[..., None]
    out.append(FaceCrop(source, image, face, boxes is None))
  return out


def detected_faces(
  find_faces: Callable[[UInt8[np.ndarray, "h w 3"]], Any],
  pixels: UInt8[np.ndarray, "h w 3"],
) -> list[Face]:
  """Returns the faces that a detector of the user's own finds, checked.

  Args:
    find_faces: the detector, or its method `detect`.
    pixels: RGB.

  Raises:
    UserError: it returns something else than a list of faces, or one of them
      is invalid, see `faces_of`, or has a score that is not finite.
  """
  name = f"detector {getattr(find_faces, '__qualname__', repr(find_faces))}"
  found = find_faces(pixels)
  if not isinstance(found, Iterable):
    raise UserError(
      f"{name} returned {found!r:.60}, not a list of Face objects"
    )
  faces = []
  for i, face in enumerate(found):
    if not isinstance(face, Face):
      raise UserError(f"{name} returned {face!r:.60}, which is no fer_jax.Face")
    named = f"{name}: faces[{i}]"
    checked = _checked(face, named, pixels.shape[:2])
    if face.score is not None:
      score = _floats([face.score], 1)
      require(score is not None, f"{named}.score", face.score, "be finite")
      checked = checked._replace(score=score[0])
    faces.append(checked)
  return faces


def faces_of(boxes: Boxes, shape: tuple[int, int]) -> list[Face]:
  """Returns the caller's own boxes as faces, checked.

  Args:
    boxes: each x, y, width, height in pixels of the image, or a `Face` with
      eyes.
    shape: height and width of the image.

  Raises:
    UserError: a box is not four finite numbers, has no area, or lies outside
      the image; or an eye is not two finite numbers.

  >>> faces_of([(10, 20, 30, 40)], (100, 100))[0].box
  (10.0, 20.0, 30.0, 40.0)
  """
  if not isinstance(boxes, Iterable):
    raise UserError(
      f"boxes={boxes!r} must be a list of x, y, width, height in pixels"
    )
  return [_checked(box, f"boxes[{i}]", shape) for i, box in enumerate(boxes)]


def _checked(given: Any, name: str, shape: tuple[int, int]) -> Face:
  """Returns a box or a face as one whose box and eyes are finite floats."""
  face = given if isinstance(given, Face) else Face(given)
  box = _floats(face.box, 4)
  what = f"{name}={face.box!r}"
  if box is None:
    raise UserError(
      f"{what} must be finite numbers x, y, width, height in pixels"
    )
  x, y, w, h = box
  if w <= 0 or h <= 0:
    raise UserError(f"{what} must have an area")
  if x >= shape[1] or y >= shape[0] or x + w <= 0 or y + h <= 0:
    raise UserError(
      f"{what} lies outside the image of {shape[1]} x {shape[0]} pixels"
    )
  eyes = []
  for side, eye in (("left", face.left_eye), ("right", face.right_eye)):
    point = None if eye is None else _floats(eye, 2)
    must = "be x, y in pixels, finite, or None"
    require((eye is None) == (point is None), f"{name}.{side}_eye", eye, must)
    eyes.append(point)
  return Face(box, eyes[0], eyes[1], face.score)


def _floats(given: Any, count: int) -> Any:
  """Returns so many finite numbers as floats; None if these are none."""
  try:
    numbers = tuple(float(number) for number in given)
  except (TypeError, ValueError):
    return None
  finite = all(abs(number) < 1e9 for number in numbers)
  return numbers if finite and len(numbers) == count else None


def read_pixels(source: image_reader.Source) -> UInt8[np.ndarray, "h w 3"]:
  """Reads an image in color.

  Args:
    source: as in `image_reader.read`, a URL, or a function without arguments
      that returns any of these.

  Raises:
    UnreadableError: it cannot be downloaded or read.
  """
  if callable(source):
    source = source()
  if web_images.is_url(source):
    source = web_images.download(str(source))
  elif isinstance(source, str | os.PathLike):
    source = os.path.expanduser(source)
  return image_reader.read(source, color=True)


def as_list(images: Any) -> tuple[list[Any], bool]:
  """Returns images one by one, and whether there was only one.

  Args:
    images: one image in any form that `image_reader.read` takes or a URL, a
      stack `[n h w (c)]`, or several images.
  """
  if holds_several(images):
    return list(images), False
  return [images], True


def holds_several(images: Any) -> bool:
  """Returns whether this is a stack or several images, and not one."""
  if image_arrays.is_stack(images):
    return True
  return isinstance(images, Iterable) and not _is_one(images)


def _is_one(image: Any) -> bool:
  single = (str, bytes, bytearray, memoryview, os.PathLike, Image.Image)
  return (
    isinstance(image, single)
    or hasattr(image, "read")
    or hasattr(image, "__array__")
  )


def name_of(image: Any, position: int) -> str:
  """Returns what to call an image: its path or URL, or its position."""
  if isinstance(image, str | os.PathLike):
    return os.fsdecode(os.fspath(image))
  return str(position)
