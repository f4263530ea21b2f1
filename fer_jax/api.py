"""Functions on trained models: load, evaluate, explain, export.

What only some of them need is imported by these: `load_model` has to be quick.
"""

import contextlib
import dataclasses
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from fer_jax.data import image_arrays
from fer_jax.errors import UserError, choose, require
from fer_jax.faces.face import Detector
from fer_jax.inference.face_crops import FindFaces
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.object_stores import local_copies, urls
from fer_jax.pretrained import released

if TYPE_CHECKING:
  from fer_jax.evaluation import report

Source = str | os.PathLike[str]


def load_model(
  source: Source | None = None,
  *,
  checkpoint: str = "best",
  batch_size: int = 0,
  tta: str = "none",
  detector: Detector | FindFaces | str | None = None,
) -> Predictor:
  """Loads a released model, or one that you trained.

  Args:
    source: a name that `list_released` returns, or the workdir of a run; None
      is the default released model.
    checkpoint: of a run, "best" or "latest".
    batch_size: faces per compiled call; 0 is the model's own.
    tta: test-time augmentation: "none", "flip" or "ten_crop".
    detector: finds faces: "mtcnn", "centerface", what
      `fer_jax.create_detector` returns, or a function from an image, uint8
      `[h w 3]`, to a list of `fer_jax.Face`; None is "mtcnn".

  Returns:
    A predictor with `predict`, `annotate`, `explain` and `stream`.

  Raises:
    UserError: there is no such model or detector, or it cannot be read.

  Example:
    model = fer_jax.load_model("runs/example")
    image = np.zeros([48, 48], np.uint8)
    for face in model.predict(image, detect=False):
      print(face.label, face.probability)
  """
  trained = released.load_model(source, checkpoint, batch_size)
  return Predictor(trained, detector, tta=tta)


def load(workdir: Source, **options: Any) -> Predictor:
  """Loads a model; the former name of `load_model`.

  Args:
    workdir: as `load_model`'s `source`.
    **options: as in `load_model`.
  """
  warnings.warn(
    "fer_jax.load is now fer_jax.load_model", FutureWarning, stacklevel=2
  )
  return load_model(workdir, **options)


def evaluate_model(
  models: Source | Predictor | Sequence[Source | Predictor] | None = None,
  split: str = "test",
  tta: str = "none",
  *,
  checkpoint: str = "best",
  output: Source | None = None,
  manual_dir: Source | None = None,
  data_dir: Source | None = None,
  show: "Callable[[report.Results], None]" = lambda results: None,
) -> "report.Results":
  """Evaluates a model, or an ensemble of several, on the dataset it is for.

  Args:
    models: workdirs of runs, names of released models, or loaded models;
      several are an ensemble, the mean of their probabilities. None is the
      default released model.
    split: "train", "validation", "test", or several joined by "+".
    tta: test-time augmentation of all models: "none", "flip" or "ten_crop";
      that with which a model was loaded is not used.
    checkpoint: of runs, "best" or "latest".
    output: the folder of a report with plots, tables and a page; None writes
      none. It must be new, empty, or hold a report.
    manual_dir: where the dataset's release lies, if it has moved.
    data_dir: where prepared data lie, if they have moved.
    show: called with the results before the report is written.

  Returns:
    Predictions and scores with 95 % intervals; printed, it is a table.

  Raises:
    UserError: there is no such model, dataset or split, or the report cannot be
      written.

  Example:
    results = fer_jax.evaluate_model("runs/example", split="validation")
    print(results.scores.accuracy, results.scores.intervals["accuracy"])
  """
  from fer_jax.evaluation import predictions, report

  is_text = isinstance(split, str)
  require(is_text, "split", split, 'be text; "validation+test" joins two')
  is_one = isinstance(models, str) or not isinstance(models, Iterable)
  listed: Any = [models] if is_one else models
  trained = [_trained(model, checkpoint) for model in listed]
  if not trained:
    raise UserError(f"models={models!r} names no model")
  with contextlib.ExitStack() as stack:
    folder = None
    if output is not None:
      place = local_copies.output(urls.to_path(output))
      folder = stack.enter_context(place)
      report.check_output(folder, split)
    results = report.results_of(
      predictions.predict(trained, split, tta, manual_dir, data_dir), tta
    )
    show(results)
    if folder is not None:
      report.write(results, trained, folder)
  return results


@dataclasses.dataclass(frozen=True)
class ExportedModel:
  """The files of an exported model; printed, they are listed with their sizes.

  Attributes:
    folder: where they are.
    files: their paths.
    sizes: their sizes in bytes.
  """

  folder: Path
  files: tuple[Path, ...]
  sizes: tuple[int, ...]

  def __str__(self) -> str:
    return "\n".join(
      f"{path}  {size / 1e6:,.2f} MB"
      for path, size in zip(self.files, self.sizes, strict=True)
    )


def export_model(
  model: Source | Predictor | None = None,
  output: Source | None = None,
  format: str = "stablehlo",
  *,
  checkpoint: str = "best",
) -> ExportedModel:
  """Writes a model as files that run without this package.

  Args:
    model: a workdir, the name of a released model, or a loaded model; None is
      the default released model.
    output: the folder to write; None is `export` in the workdir.
    format: "stablehlo" (programs for JAX) or "onnx".
    checkpoint: of a run, "best" or "latest".

  Raises:
    UserError: there is no such model, or the files cannot be written.

  Example:
    print(fer_jax.export_model("runs/example", "exported"))
  """
  from fer_jax.inference import exporting

  trained = _trained(model, checkpoint)
  place = urls.to_path(output or trained.workdir / "export")
  with local_copies.output(place) as folder:
    files = exporting.export(trained, folder, format)
    sizes = tuple(path.stat().st_size for path in files)
  return ExportedModel(place, tuple(place / f.name for f in files), sizes)


def explain_model(
  model: Source | Predictor | None = None,
  images: Num[np.ndarray, "n h w c"] | Sequence[Any] | None = None,
  *,
  split: str = "validation",
  count: int = 24,
  seed: int = 0,
  layer: str = "",
  attention: bool = False,
  checkpoint: str = "best",
  manual_dir: Source | None = None,
  data_dir: Source | None = None,
) -> Image.Image:
  """Draws faces beside the places that speak for their class (Grad-CAM).

  For photos in which faces are to be found, use `load_model(...).explain`.

  Args:
    model: a workdir, the name of a released model, or a loaded model; None is
      the default released model.
    images: faces of the size that the model takes, one array or a list of
      arrays, uint8, uint16 or floats in 0..1; None draws some of a split.
    split: where images are drawn from.
    count: how many are drawn.
    seed: draws them.
    layer: the layer whose feature maps are used; "" is a suitable one.
    attention: whether to show the model's own CBAM maps instead.
    checkpoint: of a run, "best" or "latest".
    manual_dir: where the dataset's release lies, if it has moved.
    data_dir: where prepared data lie, if they have moved.

  Returns:
    A picture, which notebooks show and `save` writes.

  Raises:
    UserError: there is no such model, dataset, split or layer, or the images
      have another shape.

  Example:
    sheet = fer_jax.explain_model("runs/example", count=4)
    sheet.save("explained.png")
  """
  from fer_jax.evaluation import predictions
  from fer_jax.inference import explanation_sheets

  for name, number, least in (("count", count, 1), ("seed", seed, 0)):
    is_valid = isinstance(number, numbers.Integral) and number >= least
    require(is_valid, name, number, f"be an integer, at least {least}")
  trained, targets = _trained(model, checkpoint), None
  if images is not None:
    images = _faces(images, trained)
  else:
    dataset = predictions.open_dataset(trained, manual_dir, data_dir)
    choose("split", split, dataset.splits)
    examples = dataset.split(split)
    order = np.random.default_rng(seed).permutation(len(examples))
    drawn = examples.read(np.sort(order[:count]))
    images, targets = drawn["image"], drawn["target"]
  return explanation_sheets.explain(
    trained,
    images,
    targets,
    layer=layer,
    attention=attention,
    tta=model.tta if isinstance(model, Predictor) else "none",
  )


def _trained(model: Source | Predictor | None, checkpoint: str) -> TrainedModel:
  if isinstance(model, Predictor):
    return model.trained
  return released.load_model(model, checkpoint)


def _faces(images: Any, trained: TrainedModel) -> UInt8[np.ndarray, "n h w c"]:
  """Returns faces as the model takes them, checked."""
  must = (
    f"images must be arrays {list(trained.image_shape)}, faces as the model"
    " takes them; for photos use load_model(...).explain"
  )
  try:
    for image in images:
      if not hasattr(image, "__array__"):
        raise TypeError(f"not {type(image).__name__}")
    faces = np.stack([image_arrays.eight_bits(image) for image in images])
  except (UserError, TypeError, ValueError) as e:
    raise UserError(f"{must} ({e})") from e
  if faces.shape[1:] != trained.image_shape:
    raise UserError(f"{must}, not {list(faces.shape[1:])}")
  return faces
