"""Chang's small network on happy, neutral and sad faces."""

from fer_jax.studies.papers.definitions import Curves, Paper, Row, Table, names

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
_EIGHT = tuple(name for name in names(_ROWS) if name != "100 epochs")

PAPER = Paper(
  title="Chang: happy, neutral and sad",
  protocol=(
    "The paper prints no figures. It finds that a learning rate of 0.01"
    " overshoots, that 100 epochs overfit, and that dropout, batch"
    " normalization and LeakyReLU help. Its test split is cut from the training"
    " data. Ours are of the official validation split (2,155 images), but for"
    " one row, where a tenth of the training images are cut off for validation"
    " and a tenth for test. The row without dropout and BatchNorm leaves out"
    " those of the dense layers."
  ),
  rows=_ROWS,
  tables=(
    Table(
      "Findings",
      (
        "accuracy",
        "last_accuracy",
        "last_train_accuracy",
        "macro_f1",
        "loss",
      ),
      names(_ROWS),
    ),
  ),
  curves=(
    Curves("losses", "8 epochs", "loss", _EIGHT),
    Curves("overfitting", "100 epochs", "loss", ("100 epochs",)),
  ),
)
