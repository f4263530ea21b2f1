"""The HTML page of a report folder, self-contained."""

import base64
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jinja2
from matplotlib.figure import Figure

from fer_jax import __version__
from fer_jax.config import flatten, to_json
from fer_jax.errors import UserError
from fer_jax.files import check_writable
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models.summary import summarize
from fer_jax.object_stores.objects import read_file
from fer_jax.output_folder import OutputFolder, made_files
from fer_jax.plot_theme import to_png
from fer_jax.training.logging import metric_writer

NAME = "index.html"
_TEMPLATE = "page.html.jinja"
# Plots of a split, in order: the end of the file's name, and the caption.
_PICTURES = (
  ("confusion_normalized", "Confusion matrix, in percent of the true class"),
  ("confusion", "Confusion matrix, number of images"),
  ("confusion_alphabetical", "Confusion matrix, classes in alphabetical order"),
  ("per_class", "Recall, precision and F1 of each class"),
  ("reliability", "Reliability diagram: accuracy over confidence"),
)


# End of the names of a plot's files -> whether they are for dark screens.
THEMES = {"": False, "_dark": True}


def file_names(split: str) -> list[str]:
  """Returns the names of the files that a report may have for a split."""
  pictures = [f"{name}{end}.png" for name, _ in _PICTURES for end in THEMES]
  return [
    f"{split}_{name}" for name in ("predictions.csv", "mistakes.png", *pictures)
  ]


def page(folder: Path, trained: TrainedModel) -> str:
  """Returns the page for all splits whose metrics are in the folder.

  Plots are embedded, so the file can be sent and opened anywhere, and come in
  two color schemes, for light and dark screens.

  Args:
    folder: folder of the report, with `metrics.json` and the plots.
    trained: the model, or the first of an ensemble.
  """
  metrics = json.loads((folder / "metrics.json").read_text())
  height, width, _ = trained.image_shape
  size = trained.config.input.image_size
  summary = summarize(
    trained.model, (size, size, trained.config.input.channels)
  )
  return render(
    _TEMPLATE,
    title=f"{trained.config.model.name} on {trained.config.dataset.name}",
    trained=trained,
    image=f"{width} x {height}",
    summary=summary,
    fields=flatten(to_json(trained.config)),
    run=_summary_of_run(trained.workdir),
    curves=picture(trained.workdir / "curves.png"),
    splits=[_split(folder, name, found) for name, found in metrics.items()],
  )


def render(template: str, **values: Any) -> str:
  """Renders a template of this package; every name in it must be given."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("fer_jax.evaluation", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  device = jax.local_devices()[0]
  return environment.get_template(template).render(
    environment={
      "fer_jax": __version__,
      "jax": jax.__version__,
      "flax": flax.__version__,
      "Python": platform.python_version(),
      "on": f"{jax.local_device_count()} x {device.device_kind},"
      f" {platform.system()} {platform.machine()}",
    },
    **values,
  )


def report_folder(folder: Path, kind: str) -> OutputFolder:
  """Returns the folder of a report after checking that it may be written.

  Args:
    folder: need not exist.
    kind: of the report: "report" of an evaluation, "study" or "sweep".

  Raises:
    UserError: it cannot be written, or holds other files than such a report.
  """
  check_writable(folder)
  output = OutputFolder(folder, kind=kind)
  if folder.is_dir() and not made_files(folder, kind):
    if any(not path.name.startswith(".") for path in folder.iterdir()):
      raise UserError(
        f"{folder} holds other files than a report, or a report of an earlier"
        " version: remove it, or give a new or empty folder"
      )
  return output


def write_pictures(
  drawings: Mapping[str, Callable[[bool], Figure]], output: OutputFolder
) -> list[str]:
  """Writes plots for light and for dark screens, NAME.png and NAME_dark.png.

  Args:
    drawings: by name, a function of whether the screen is dark.
    output: where they are written.

  Returns:
    The names of the files.
  """
  names = []
  for name, draw in drawings.items():
    for end, dark in THEMES.items():
      names.append(f"{name}{end}.png")
      with output.write(names[-1]) as temporary:
        temporary.write_bytes(to_png(draw(dark)))
  return names


def _split(folder: Path, name: str, metrics: dict[str, Any]) -> dict[str, Any]:
  pictures = [
    {
      "caption": caption,
      "light": picture(folder / f"{name}_{end}.png"),
      "dark": picture(folder / f"{name}_{end}_dark.png"),
    }
    for end, caption in _PICTURES
  ]
  return {
    "name": name,
    "metrics": metrics,
    "pictures": [p for p in pictures if p["light"] and p["dark"]],
    "mistakes": picture(folder / f"{name}_mistakes.png"),
  }


def pictures(folder: Path, names: Iterable[str]) -> dict[str, str]:
  """Returns PNG files of a folder as data URLs, by name without suffix."""
  return {Path(name).stem: picture(folder / name) for name in names}


def picture(path: Path) -> str:
  """Returns a PNG file as a data URL; "" if there is none."""
  if (png := read_file(path)) is None:
    return ""
  return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _summary_of_run(workdir: Path) -> dict[str, Any]:
  """Returns the last summary record in metrics.jsonl; {} if there is none."""
  try:
    records = metric_writer.read(workdir)
  except UserError:
    return {}
  found = [record for record in records if record["kind"] == "summary"]
  return found[-1] if found else {}
