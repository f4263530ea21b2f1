r"""Times predictions of photos and of face crops, end to end.

python benchmarks/predict_timing.py [--workdir=W] [--count=1000] [--turns=5] \
  [--detect] [--output=benchmarks/out] [FOLDER]

Crops (without --detect): the same files are classified in full batches, as
fer_jax.predict does, and one image per call. Photos (--detect): faces are found
and classified by one thread and by all cores. The measurements are interleaved.
Without a folder the crops are drawn faces, and the photos those faces on walls
of 640 x 480 pixels.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import reporting
import timing
from absl import flags
from PIL import Image
from reporting import Column, Row

from fer_jax.cli import app, model_flags
from fer_jax.data import image_reader, parallel
from fer_jax.data.datasets.synthetic_faces import draw_faces
from fer_jax.data.image_inputs import list_inputs
from fer_jax.inference.prediction_stream import NamedImage
from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained import released
from fer_jax.training.runtime import startup

_PHOTO = (640, 480)


def define_flags() -> None:
  """Defines the command's flags."""
  model_flags.define_workdir()
  flags.DEFINE_integer(
    "count", 1000, "Maximum number of images.", lower_bound=1
  )
  flags.DEFINE_integer("batch_size", 64, "Faces per call.", lower_bound=2)
  flags.DEFINE_integer("turns", 5, "Repetitions.", lower_bound=3)
  flags.DEFINE_bool("detect", False, "Detect faces in photos.")
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  given = flags.FLAGS
  startup.start("off")
  table = reporting.Table(COLUMNS, given.output, "predict_timing")
  source = given.workdir, given.checkpoint
  model = released.load_model(*source, given.batch_size)
  with tempfile.TemporaryDirectory() as folder:
    if len(argv) > 1:
      found = list_inputs([Path(name) for name in argv[1:]]).images
      paths = list(found)[: given.count]
    else:
      draw = _draw_photos if given.detect else _draw_crops
      paths = draw(Path(folder), given.count)
    if given.detect:
      variants = _photo_variants(Predictor(model), paths)
    else:
      single = released.load_model(*source, 1)
      variants = _crop_variants(Predictor(model), Predictor(single), paths)
    faces = {name: run() for name, run in variants.items()}  # and compiles
    timings = timing.interleave(
      variants, num_turns=given.turns, calls_per_turn=1, warm_up=0
    )
    megapixels = sum(_pixels(path) for path in paths) / 1e6
  table.add(
    [
      _row(name, str(model.workdir), len(paths), faces[name], megapixels, of)
      for name, of in timings.items()
    ]
  )
  slow, fast = list(timings.values())[::-1]
  print(
    f"{slow.median / fast.median:.1f} times, {len(paths):,} images,"
    f" {given.turns} repetitions"
  )
  table.finish()


def _row(
  what: str,
  model: str,
  images: int,
  faces: int,
  megapixels: float,
  measured: timing.Timing,
) -> Row:
  return {
    "what": what,
    "model": model,
    "images": images,
    "faces": faces,
    "megapixels": round(megapixels, 6),
    "turns": measured.num_turns,
    "seconds": round(measured.median, 6),
    "low": round(measured.low, 6),
    "high": round(measured.high, 6),
    **timing.environment(),
    **reporting.machine(),
  }


COLUMNS = (
  Column("what", 12, lambda row: row["what"], left=True),
  Column(
    "images/s",
    30,
    lambda row: "{:,.1f} ({:,.1f}-{:,.1f})".format(
      *(row["images"] / row[name] for name in ("seconds", "high", "low"))
    ),
  ),
  Column("faces/s", 9, lambda row: f"{row['faces'] / row['seconds']:,.1f}"),
  Column(
    "ms/megapixel",
    12,
    lambda row: f"{1e3 * row['seconds'] / row['megapixels']:,.1f}",
  ),
)


def _photo_variants(
  predictor: Predictor, paths: list[Path]
) -> dict[str, Callable[[], int]]:
  def run(num_workers: int) -> int:
    named = [NamedImage(str(path), path) for path in paths]
    results = predictor.stream(named, num_workers=num_workers)
    return sum(len(result.faces) for result in results)

  cores = parallel.num_cores()
  return {f"{cores} threads": lambda: run(cores), "1 thread": lambda: run(1)}


def _crop_variants(
  full: Predictor, single: Predictor, paths: list[Path]
) -> dict[str, Callable[[], int]]:
  return {
    "batches": lambda: len(full.predict(paths, detect=False)),
    "one by one": lambda: sum(
      len(single.predict(path, detect=False)) for path in paths
    ),
  }


def _pixels(path: Path) -> int:
  height, width, _ = image_reader.read(path).shape
  return height * width


def _draw_crops(folder: Path, count: int) -> list[Path]:
  paths = []
  for i, image in enumerate(draw_faces(np.arange(count) % 7, seed=0)):
    paths.append(folder / f"{i:05}.png")
    Image.fromarray(image[..., 0]).save(paths[-1])
  return paths


def _draw_photos(folder: Path, count: int) -> list[Path]:
  faces = draw_faces(np.arange(28) % 7, seed=0, side=160)[..., 0]
  rng, paths = np.random.default_rng(0), []
  for i in range(count):
    wall = rng.integers(60, 200, (6, 8, 3), np.uint8)
    photo = Image.fromarray(wall).resize(_PHOTO, Image.Resampling.BICUBIC)
    for x in (60, 400):
      face = Image.fromarray(faces[rng.integers(28)])
      photo.paste(face.convert("RGB"), (x, int(rng.integers(40, 280))))
    paths.append(folder / f"{i:05}.jpg")
    photo.save(paths[-1], quality=92)
  return paths


if __name__ == "__main__":
  define_flags()
  app.run(main, takes_arguments=True)
