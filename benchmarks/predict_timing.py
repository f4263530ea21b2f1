r"""Times predictions of many faces: in full batches, and one by one.

python benchmarks/predict_timing.py --workdir=W [--count=1000] [--turns=5] \
  [FOLDER_OF_CROPS]

Both read the same files and classify the same crops, in turns: `batches` as
fer_jax.predict does, `one by one` with a batch of one image a call. Without a
folder the crops are drawn faces.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing
from absl import flags
from PIL import Image

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.data.datasets.synthetic_faces import draw_faces
from fer_jax.inference import predict_images
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import Trained


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "A run of fer_jax.train.", required=True)
  flags.DEFINE_integer("count", 1000, "Images at most.", lower_bound=1)
  flags.DEFINE_integer("batch_size", 64, "Of full batches.", lower_bound=2)
  flags.DEFINE_integer("turns", 5, "Measurements of each.", lower_bound=3)


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  given = flags.FLAGS
  command.start("off")
  full = Predictor(Trained.load(given.workdir, batch_size=given.batch_size))
  single = Predictor(Trained.load(given.workdir, batch_size=1))
  with tempfile.TemporaryDirectory() as folder:
    if len(argv) > 1:
      paths = predict_images.find_images([Path(name) for name in argv[1:]])
      paths = paths[: given.count]
    else:
      paths = _draw(Path(folder), given.count)
    timings = timing.interleave(
      {
        "batches": lambda: len(full.predict(paths, detect=False)),
        "one by one": lambda: [
          len(single.predict(path, detect=False)) for path in paths
        ],
      },
      num_turns=given.turns,
      calls_per_turn=1,
      warm_up=1,
    )
  for name, of in timings.items():
    low, high = len(paths) / of.high, len(paths) / of.low
    rate = len(paths) / of.median
    print(f"{name:10}  {rate:8,.0f} faces/s ({low:,.0f}-{high:,.0f})")
  ratio = timings["one by one"].median / timings["batches"].median
  print(f"{ratio:.1f} times, {len(paths):,} images, {given.turns} turns")


def _draw(folder: Path, count: int) -> list[Path]:
  paths = []
  for i, image in enumerate(draw_faces(np.arange(count) % 7, seed=0)):
    paths.append(folder / f"{i:05}.png")
    Image.fromarray(image[..., 0]).save(paths[-1])
  return paths


if __name__ == "__main__":
  define_flags()
  errors.run(main, takes_arguments=True)
