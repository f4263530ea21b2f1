"""Predictions for files and folders of images, written and drawn."""

import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NoReturn

import numpy as np
from jaxtyping import UInt8

from fer_jax import fonts
from fer_jax.console import progress, say
from fer_jax.data import image_reader, parallel
from fer_jax.data.datasets import bounded_io, csv_table, fer2013_csv
from fer_jax.data.image_inputs import list_inputs
from fer_jax.data.image_listing import Skipped, describe_skipped
from fer_jax.errors import UserError
from fer_jax.inference import drawing, face_crops, web_images
from fer_jax.inference.prediction import ImageResult
from fer_jax.inference.prediction_stream import NamedImage
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.result_writers import result_writer
from fer_jax.inference.web_images import is_url
from fer_jax.object_stores.urls import require_local
from fer_jax.output_folder import OutputFolder
from fer_jax.output_names import output_names, unused_name
from fer_jax.text_output import counted, printable


@dataclasses.dataclass
class ImageCounts:
  """Numbers of images and faces.

  Attributes:
    images: all images, readable or not.
    faces: faces found in them.
    without_face: images without a face.
    unreadable: images that cannot be read.
    not_drawn: images with faces that could not be read again to be drawn.
    skipped: files in the folders that are no images.
    seconds: time for all images.
  """

  images: int = 0
  faces: int = 0
  without_face: int = 0
  unreadable: int = 0
  not_drawn: int = 0
  skipped: int = 0
  seconds: float = 0.0

  def __str__(self) -> str:
    seconds = self.seconds or float("inf")
    not_drawn = f", not drawn {self.not_drawn:,}" if self.not_drawn else ""
    skipped = f", skipped {self.skipped:,}" if self.skipped else ""
    return (
      f"{counted(self.faces, 'face')} in {counted(self.images, 'image')}"
      f" ({self.images / seconds:,.1f} images/s,"
      f" {self.faces / seconds:,.1f} faces/s), no face"
      f" {self.without_face:,}, unreadable {self.unreadable:,}{not_drawn}"
      f"{skipped}"
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
    Numbers of images and faces; unreadable images, and what was skipped, are
    named on stderr.

  Raises:
    UserError: an input does not exist, there are no images, or an output would
      overwrite a file that the package did not make.
  """
  urls = list(dict.fromkeys(str(name) for name in inputs if is_url(name)))
  paths = [
    require_local(name, "image", is_input=True)
    for name in inputs
    if not is_url(name)
  ]
  tables = [path for path in paths if fer2013_csv.is_image_table(path)]
  paths = [path for path in paths if path not in tables]
  images: dict[Path, Path] = {}
  skipped: tuple[Skipped, ...] = ()
  if paths:
    found = list_inputs(paths, output=annotate, allow_none=bool(urls))
    images, skipped = found.images, found.skipped
  broken = [item for item in skipped if item.is_image]
  others = [item for item in skipped if not item.is_image]
  sources: dict[str, Any] = {str(path): path for path in images}
  sources |= (
    {url: _download(url) for url in urls}
    if annotate
    else {url: url for url in urls}
  )
  drawer = _Drawer(predictor, annotate, images, sources) if annotate else None
  named = itertools.chain(
    (NamedImage(name, source) for name, source in sources.items()),
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
  counts.not_drawn = len(drawer.failed) if drawer else 0
  if others:
    say(f"skipped {describe_skipped(others)}")
  return counts


def _table_images(table: Path) -> Iterator[NamedImage]:
  """Yields the images of a table; what is wrong in it is found when read."""
  try:
    with bounded_io.open_regular(table) as f:
      stream = bounded_io.decompressed(f)
      opened = csv_table.open_table(str(table), stream, ["pixels"], "test.csv")
      for line, (pixels,) in opened.rows(["pixels"]):
        image = functools.partial(_parsed, pixels)
        yield NamedImage(f"{table}:{line}", image)
  except (UserError, *bounded_io.BROKEN) as e:  # The rest cannot be read.
    why = f"the table ends here: {e or type(e).__name__}"
    yield NamedImage(str(table), functools.partial(_refused, why))


def _parsed(pixels: bytes) -> UInt8[np.ndarray, "48 48 1"]:
  try:
    return fer2013_csv.parse_pixels(pixels)
  except ValueError as e:
    raise image_reader.UnreadableError(str(e)) from e


def _refused(why: str) -> NoReturn:
  raise image_reader.UnreadableError(why)


def _count(result: ImageResult, counts: ImageCounts) -> None:
  counts.images += 1
  counts.faces += len(result.faces)
  if result.error:
    counts.unreadable += 1
    say(f"cannot read {printable(result.source)}: {printable(result.error)}")
  else:
    counts.without_face += not result.faces


def _download(url: str) -> Callable[[], bytes]:
  """Returns a function that downloads when it is first called."""
  return functools.cache(functools.partial(web_images.download, url))


class _Drawer:
  """Writes a copy of every image that has a face, with boxes and labels.

  Attributes:
    failed: images that could not be read again.
  """

  def __init__(
    self,
    predictor: Predictor,
    folder: Path,
    images: dict[Path, Path],
    sources: Mapping[str, Any],
  ):
    self.failed: list[str] = []
    self._class_names = predictor.class_names
    self._folder = OutputFolder(folder, inputs=images)
    self._sources = sources
    names = {str(p): n for p, n in output_names(images, ".png").items()}
    urls = [name for name in sources if name not in names]
    names |= {url: PurePath(f"url{i + 1}.png") for i, url in enumerate(urls)}
    used: set[str] = set()
    self._targets = {s: unused_name(name, used) for s, name in names.items()}
    # Checked before anything is predicted.
    self._folder.paths_for(self._targets)
    legend = fonts.drawable_labels(self._class_names).legend
    if legend:
      with self._folder.write("legend.txt") as temporary:
        temporary.write_text(legend.replace(", #", "\n#") + "\n", "utf-8")

  def draw_all(self, results: Iterator[ImageResult]) -> Iterator[ImageResult]:
    """Yields the results once they are drawn, by several threads."""
    return parallel.map_in_order(self._draw, results)

  def _draw(self, result: ImageResult) -> ImageResult:
    source = self._sources.get(result.source)
    if result.faces and source is not None:
      try:  # Read again: the images of a batch together may be large.
        pixels = face_crops.read_pixels(source)
      except image_reader.UnreadableError as e:
        self.failed.append(result.source)
        say(f"cannot draw {printable(result.source)}: {printable(e)}")
        return result
      picture = drawing.annotated(pixels, result.faces, self._class_names)
      with self._folder.write(self._targets[result.source]) as temporary:
        picture.save(temporary, "PNG", compress_level=1)
    if callable(source):  # A download, which is kept until here.
      source.cache_clear()
    return result
