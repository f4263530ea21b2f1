"""Chang's small network on happy, neutral and sad faces."""

from typing import Any

from fer_jax.studies.papers.definitions import (
  ABLATION_METRICS,
  Curves,
  Paper,
  Row,
  Table,
  names,
)

# The paper has batch normalization in the dense layers only.
_PLAIN = {
  "model.widths": (32, 64, 128),
  "model.conv_batch_norm": False,
  "schedule.name": "fixed",
}


def _plain(name: str, changes: dict[str, Any] | None = None) -> Row:
  return Row(f"plain: {name}", "chang_cnn", overrides=_PLAIN | (changes or {}))


_ROWS = (
  Row("8 epochs, learning rate 0.001", "chang_cnn"),
  Row(
    "learning rate 0.01",
    "chang_cnn",
    overrides={"optimizer.learning_rate": 0.01},
  ),
  Row(
    "without dropout and BatchNorm",
    "chang_cnn",
    overrides={"model.dropout": 0.0, "model.batch_norm": False},
  ),
  Row("ReLU", "chang_cnn", overrides={"model.activation": "relu"}),
  Row("8 epochs, split cut from the training data", "chang_cnn:holdout"),
  Row("100 epochs", "chang_cnn", overrides={"num_epochs": 100}),
)
_PLAIN_ROWS = (
  _plain("learning rate 0.001"),
  _plain("learning rate 0.01", {"optimizer.learning_rate": 0.01}),
  _plain(
    "without dropout and BatchNorm",
    {"model.dropout": 0.0, "model.batch_norm": False},
  ),
  _plain("ReLU", {"model.activation": "relu"}),
  Row(
    "plain: learning rate 0.01, split cut from the training data",
    "chang_cnn:holdout",
    overrides=_PLAIN | {"optimizer.learning_rate": 0.01},
  ),
)
_EIGHT = tuple(name for name in names(_ROWS) if name != "100 epochs")

PAPER = Paper(
  title="Chang: happy, neutral and sad",
  reference=(
    'Darrel Chang, "Deep Learning Model for Facial Expression Recognition",'
    " California State Polytechnic University, Pomona."
  ),
  protocol=(
    "The paper prints no figures. It states a learning rate of 0.01 and 8"
    " epochs; rows that name no rate have 0.001. It finds that a rate of 0.01"
    " overshoots, that 100 epochs overfit, and that dropout, batch"
    " normalization and LeakyReLU help. Its test split is cut from the training"
    " data. Ours are of the official validation split (2,155 images), except"
    " in two rows, which hold out a tenth of the training images for validation"
    " and a tenth for test. Sizes, optimizer and schedule are not stated. The"
    " recipe has more than the paper's text: a fourth convolution, batch"
    " normalization of the convolutions, too, and a learning rate that"
    " decreases. The plain rows have three convolutions, batch normalization"
    " of the dense layer only, and a fixed learning rate. Rows without dropout"
    " and BatchNorm leave out those of the dense layer."
  ),
  rows=(*_ROWS, *_PLAIN_ROWS),
  tables=(
    Table("The recipe", ABLATION_METRICS, names(_ROWS)),
    Table("The plain network", ABLATION_METRICS, names(_PLAIN_ROWS)),
  ),
  curves=(
    Curves("losses", "8 epochs", "loss", _EIGHT),
    Curves("plain", "The plain network", "loss", names(_PLAIN_ROWS)),
    Curves("overfitting", "100 epochs", "loss", ("100 epochs",)),
  ),
)
