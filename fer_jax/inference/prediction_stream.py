"""Many images: read ahead by threads, classified in full batches, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fer_jax.data import image_reader, parallel
from fer_jax.errors import UserError
from fer_jax.inference import face_crops
from fer_jax.inference.face_crops import Boxes, FaceCrop
from fer_jax.inference.prediction import ImageResult, Prediction


class NamedImage(NamedTuple):
  """An image to predict, with the name that its result has.

  Attributes:
    name: what results call it.
    image: in any form that `Predictor.predict` takes, or a function without
      arguments that returns it, called when it is needed.
    boxes: its faces; None to look for them.
    frame: its number in a video.
    time: seconds since the video's start.
  """

  name: str
  image: Any
  boxes: Boxes | None = None
  frame: int | None = None
  time: float | None = None


class CroppedImage(NamedTuple):
  """An image whose faces wait to be classified.

  Attributes:
    of: the image, without its pixels.
    crops: its faces.
    error: why it could not be read; None if it was.
  """

  of: NamedImage
  crops: list[FaceCrop]
  error: image_reader.UnreadableError | None = None


def name_images(images: Any, boxes: Any = None) -> list[NamedImage]:
  """Returns images with names and boxes.

  Args:
    images: one or several, see `face_crops.as_list`.
    boxes: of one image, or a sequence with those of each; None for none.

  Raises:
    UserError: there are other boxes than images, or it is no image.
  """
  listed, is_one = face_crops.as_list(images)
  if not is_one and boxes is not None and not isinstance(boxes, Iterable):
    raise UserError(f"boxes={boxes!r} must be one list per image")
  each = [boxes] if is_one or boxes is None else list(boxes)
  if boxes is None:
    each = [None] * len(listed)
  if len(each) != len(listed):
    raise UserError(
      f"boxes holds {len(each)} lists for {len(listed)} images: pass one list"
      " per image"
    )
  return [
    NamedImage(face_crops.name_of(image, i), image, own)
    for i, (image, own) in enumerate(zip(listed, each, strict=True))
  ]


def with_names(images: Iterable[Any]) -> Iterator[NamedImage]:
  """Yields images as they are needed; those without a name get one.

  Raises:
    UserError: it is one image, and not several.
  """
  if not face_crops.holds_several(images):
    raise UserError(
      f"images must be a list of images, not one {type(images).__name__}:"
      " `predict` takes one image"
    )
  for i, image in enumerate(images):
    if not isinstance(image, NamedImage):
      image = NamedImage(face_crops.name_of(image, i), image)
    yield image


def crop_images(
  images: Iterable[NamedImage],
  crop: Callable[[NamedImage], list[FaceCrop]],
  num_workers: int = 0,
) -> Iterator[CroppedImage]:
  """Yields the cropped faces of each image, in order, read ahead by threads.

  Args:
    images: taken as they are needed.
    crop: reads an image and crops its faces.
    num_workers: threads; 0 is one per core.
  """

  def cropped(image: NamedImage) -> CroppedImage:
    without_pixels = image._replace(image=None)
    try:
      return CroppedImage(without_pixels, crop(image))
    except image_reader.UnreadableError as e:
      return CroppedImage(without_pixels, [], e)

  return parallel.map_in_order(cropped, images, num_workers)


def classify_images(
  images: Iterable[CroppedImage],
  classify: Callable[[list[FaceCrop]], list[Prediction]],
  batch_size: int,
) -> Iterator[ImageResult]:
  """Yields a result for each image, in order, from batches across images.

  Args:
    images: with their faces.
    classify: called with `batch_size` faces, with fewer at the end only.
    batch_size: faces per call.
  """
  waiting: deque[CroppedImage] = deque()  # in order
  crops: deque[FaceCrop] = deque()  # of these, not classified yet
  done: deque[Prediction] = deque()  # of these

  def finished() -> Iterator[ImageResult]:
    while waiting and len(waiting[0].crops) <= len(done):
      of, faces, error = waiting.popleft()
      own = [done.popleft() for _ in faces]
      why = str(error) if error else ""
      yield ImageResult(of.name, own, why, of.frame, of.time)

  for image in images:
    waiting.append(image)
    crops.extend(image.crops)
    while len(crops) >= batch_size:
      done.extend(classify([crops.popleft() for _ in range(batch_size)]))
    yield from finished()
  if crops:
    done.extend(classify(list(crops)))
  yield from finished()
