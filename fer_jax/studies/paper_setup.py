"""The settings of a paper's runs, as a table."""

import functools
from collections.abc import Sequence

from ml_collections import ConfigDict

from fer_jax import models
from fer_jax.data.datasets import registry
from fer_jax.models.summary import summarize
from fer_jax.studies.papers import Row
from fer_jax.studies.reproduction import load_recipe
from fer_jax.tables import format_markdown

_HEADER = (
  "run",
  "recipe",
  "parameters",
  "optimizer",
  "learning rate",
  "batch",
  "epochs",
)
# These overrides have columns of their own.
_SHOWN = {
  "optimizer.name",
  "optimizer.learning_rate",
  "batch_size",
  "num_epochs",
}


def table(rows: Sequence[Row]) -> str:
  """Returns a Markdown table: what to give `train` to train each row."""
  cells = [_cells(row) for row in rows]
  return "\n".join(format_markdown(_HEADER, cells, num_left=2))


def _cells(row: Row) -> list[str]:
  config = load_recipe(row, {})
  changes = [
    f"`{field}={value}`"
    for field, value in row.overrides.items()
    if field not in _SHOWN
  ]
  if row.init_from:
    changes.append(f"from {row.init_from}")
  return [
    row.name,
    ", ".join([f"`{row.recipe}`", *changes]),
    f"{_num_parameters(config):,}",
    config.optimizer.name,
    f"{config.optimizer.learning_rate:g}",
    str(config.batch_size),
    str(config.num_epochs),
  ]


def _num_parameters(config: ConfigDict) -> int:
  size = config.input.image_size or 48  # as FER2013's images
  options = tuple(sorted(config.model.to_dict().items()))
  channels = config.input.channels or 1
  return _count(options, _num_classes(config), (size, size, channels))


@functools.cache
def _count(
  options: tuple[tuple[str, object], ...],
  num_classes: int,
  shape: tuple[int, int, int],
) -> int:
  fields = dict(options)
  model = models.create(str(fields.pop("name")), num_classes, **fields)
  return summarize(model, shape).num_parameters


def _num_classes(config: ConfigDict) -> int:
  if config.dataset.classes:
    return len(config.dataset.classes.split(","))
  chosen: int | None = config.dataset.get("num_classes")
  return chosen or len(registry.builder_class(config.dataset.name).classes)
