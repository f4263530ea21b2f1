"""Predictions for files and folders of images, written and drawn."""

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_jax import fonts
from fer_jax.data import image_reader, parallel
from fer_jax.data.datasets import fer2013_csv
from fer_jax.data.image_inputs import list_inputs
from fer_jax.data.image_listing import Skipped, describe_skipped
from fer_jax.data.preparation_progress import progress, say
from fer_jax.errors import UserError
from fer_jax.inference import drawing, face_crops
from fer_jax.inference.prediction import ImageResult
from fer_jax.inference.prediction_stream import NamedImage
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.result_writers import result_writer
from fer_jax.inference.web_images import is_url
from fer_jax.output_folder import OutputFolder
from fer_jax.text_output import printable


@dataclasses.dataclass
class ImageCounts:
  """What became of the images.

  Attributes:
    images: all, readable or not.
    faces: found in them.
    without_face: images.
    unreadable: images.
    skipped: files in the folders that are no images.
    seconds: for all of it.
  """

  images: int = 0
  faces: int = 0
  without_face: int = 0
  unreadable: int = 0
  skipped: int = 0
  seconds: float = 0.0

  def __str__(self) -> str:
    seconds = self.seconds or float("inf")
    skipped = f", skipped {self.skipped:,}" if self.skipped else ""
    return (
      f"{self.faces:,} faces in {self.images:,} images"
      f" ({self.images / seconds:,.1f} images/s,"
      f" {self.faces / seconds:,.1f} faces/s), no face"
      f" {self.without_face:,}, unreadable {self.unreadable:,}{skipped}"
    )


def predict_files(
  predictor: Predictor,
  inputs: Sequence[str | os.PathLike[str]],
  *,
  detect: bool = True,
  as_json: bool = False,
  csv: Path | None = None,
  annotate: Path | None = None,
  num_workers: int = 0,
) -> ImageCounts:
  """Prints a line for every image and face, as soon as its batch is full.

  Args:
    predictor: classifies.
    inputs: image files, folders of images, URLs, and tables of FER2013's
      pixels such as Kaggle's test.csv, whose images are not drawn.
    detect: whether to look for faces; otherwise each image is one.
    as_json: print JSON Lines, one object per image, instead of a table.
    csv: a CSV file to write too.
    annotate: a folder for copies of the images with boxes and labels.
    num_workers: threads that read and detect; 0 is one per core.

  Returns:
    What became of the images; the unreadable ones, and what was skipped, are
    named on stderr.

  Raises:
    UserError: an input does not exist, there are no images, or an output would
      overwrite a file that the package did not make.
  """
  urls = [str(name) for name in inputs if is_url(name)]
  paths = [Path(name).expanduser() for name in inputs if not is_url(name)]
  tables = [path for path in paths if fer2013_csv.is_image_table(path)]
  paths = [path for path in paths if path not in tables]
  images: dict[Path, Path] = {}
  skipped: tuple[Skipped, ...] = ()
  if paths:
    found = list_inputs(paths, output=annotate, allow_none=bool(urls))
    images, skipped = found.images, found.skipped
  broken = [item for item in skipped if item.is_image]
  others = [item for item in skipped if not item.is_image]
  drawer = _Drawer(predictor, annotate, images, urls) if annotate else None
  named = itertools.chain(
    (NamedImage(str(image), image) for image in [*images, *urls]),
    (row for table in tables for row in _table_images(table)),
  )
  counts, started = ImageCounts(skipped=len(others)), time.monotonic()
  with result_writer(
    predictor.class_names,
    as_json=as_json,
    csv=csv,
    inputs=[*images, *tables],
  ) as write:
    results = predictor.stream(
      progress(named, "predicting", unit="images"),
      detect,
      num_workers=num_workers,
    )
    if drawer:
      results = drawer.draw_all(results)
    for result in results:
      _count(result, counts)
      write(result)
    for item in broken:
      result = ImageResult(str(item.path), [], item.reason)
      _count(result, counts)
      write(result)
  counts.seconds = time.monotonic() - started
  if others:
    say(f"skipped {describe_skipped(others)}")
  return counts


def _table_images(table: Path) -> Iterator[NamedImage]:
  for line, image in fer2013_csv.read_images(table):
    yield NamedImage(f"{table}:{line}", image)


def _count(result: ImageResult, counts: ImageCounts) -> None:
  counts.images += 1
  counts.faces += len(result.faces)
  if result.error:
    counts.unreadable += 1
    say(f"cannot read {printable(result.source)}: {printable(result.error)}")
  else:
    counts.without_face += not result.faces


class _Drawer:
  """Writes a copy of every image that has a face, with boxes and labels."""

  def __init__(
    self,
    predictor: Predictor,
    folder: Path,
    images: dict[Path, Path],
    urls: list[str],
  ):
    self._class_names = predictor.class_names
    self._folder = OutputFolder(folder, inputs=images)
    # Checked before anything is predicted.
    self._targets = {
      str(path): target.relative_to(folder)
      for path, target in self._folder.targets(images, ".png").items()
    }
    self._targets |= {
      url: Path(f"url{i + 1}.png") for i, url in enumerate(urls)
    }
    legend = fonts.drawable_labels(self._class_names).legend
    if legend:
      with self._folder.write("legend.txt") as temporary:
        temporary.write_text(legend.replace(", #", "\n#") + "\n", "utf-8")

  def draw_all(self, results: Iterator[ImageResult]) -> Iterator[ImageResult]:
    """Yields the results once they are drawn, by several threads."""
    return parallel.map_in_order(self._draw, results)

  def _draw(self, result: ImageResult) -> ImageResult:
    if result.faces and result.source in self._targets:
      try:  # Read again: the images of a batch together may be large.
        pixels = face_crops.read_pixels(result.source)
      except image_reader.UnreadableError as e:
        raise UserError(
          f"{printable(result.source)} changed while it was predicted: {e}"
        ) from e
      picture = drawing.annotated(pixels, result.faces, self._class_names)
      with self._folder.write(self._targets[result.source]) as temporary:
        picture.save(temporary, "PNG", compress_level=1)
    return result
