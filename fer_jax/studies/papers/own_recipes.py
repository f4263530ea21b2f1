"""This package's own recipes, and what each part of them brings."""

from typing import Any

from fer_jax.studies.papers.definitions import (
  ABLATION_METRICS,
  Curves,
  Paper,
  Row,
  Table,
  names,
)

# A third of the epochs, and 2 % and 31 % of the recipes' compute per image:
# minutes on a CPU.
_FER2013 = {
  "model.stem": "imagenet",
  "model.width": 0.5,
  "dtype": "float32",
  "num_epochs": 30,
}
_FER_PLUS = {"model.stem": "imagenet", "num_epochs": 33}


def _fer2013(name: str, changes: dict[str, Any]) -> Row:
  return Row(
    f"FER2013, {name}", "fer2013_resnet18", overrides=_FER2013 | changes
  )


def _fer_plus(name: str, changes: dict[str, Any]) -> Row:
  return Row(
    f"FER+, {name}", "ferplus_resnet18:half", overrides=_FER_PLUS | changes
  )


_FER2013_ROWS = (
  _fer2013("the recipe", {}),
  _fer2013("without mixup", {"augment.mixup": 0.0}),
  _fer2013(
    "CutMix instead of mixup", {"augment.mixup": 0.0, "augment.cutmix": 1.0}
  ),
  _fer2013("without random erasing", {"augment.random_erasing": 0.0}),
  _fer2013(
    "without rotation, zoom and contrast",
    {"augment.rotation": 0.0, "augment.zoom": 0.0, "augment.contrast": 0.0},
  ),
  _fer2013("without label smoothing", {"loss.label_smoothing": 0.0}),
  _fer2013("without the average of the weights", {"ema_decay": 0.0}),
  _fer2013("stochastic depth of 0.1", {"model.stochastic_depth": 0.1}),
  _fer2013(
    "AdamW",
    {
      "optimizer.name": "adamw",
      "optimizer.learning_rate": 2e-3,
      "optimizer.weight_decay": 0.05,
    },
  ),
)
_FER_PLUS_ROWS = (
  _fer_plus("the recipe", {}),
  _fer_plus("without the teacher", {"loss.teacher": ""}),
  _fer_plus("teacher only", {"loss.teacher_weight": 1.0}),
  _fer_plus("mixup as the large model", {"augment.mixup": 0.2}),
)

PAPER = Paper(
  title="This package's recipes: what each part brings",
  protocol=(
    "No paper. The recipes `fer2013_resnet18` and `ferplus_resnet18:half` and"
    " one change each, in a network that is cheaper (half the width,"
    " the ImageNet stem) and a third of the epochs. So these accuracies are"
    " below those of the [released models](models/index.md). FER+ has eight"
    " classes here and counts the most-voted one of all 3,505 images. An"
    " accuracy has a 95 % interval of about 1.6 points on FER2013 and 1.3 on"
    " FER+."
  ),
  rows=(*_FER2013_ROWS, *_FER_PLUS_ROWS),
  tables=(
    Table("FER2013", ABLATION_METRICS, names(_FER2013_ROWS)),
    Table("FER+", ABLATION_METRICS, names(_FER_PLUS_ROWS)),
  ),
  curves=(
    Curves("fer2013", "FER2013", "accuracy", names(_FER2013_ROWS)),
    Curves("ferplus", "FER+", "accuracy", names(_FER_PLUS_ROWS)),
  ),
)
