"""Pan's study of depth: ResNets on FER2013."""

from fer_jax.studies.papers.definitions import (
  AVERAGES,
  Curves,
  Paper,
  Row,
  Table,
  names,
)

_TABLE_2 = ("accuracy", *AVERAGES)
_SHUFFLED = tuple(f"shuffled_{name}" for name in _TABLE_2)


def _row(depth: int, losses: str = "", scores: str = "") -> Row:
  printed = dict(zip(("train_loss", "loss"), losses.split(), strict=False))
  for names_of_scores in (_TABLE_2, _SHUFFLED):
    printed |= dict(zip(names_of_scores, scores.split(), strict=False))
  return Row(f"ResNet-{depth}", f"resnet{depth}", printed)


_ROWS = (
  _row(18),
  _row(34),
  _row(50, "1.7006 1.7599", "18% 0.14 0.14 0.12 0.17 0.18 0.16"),
  _row(101, "1.7495 1.7232", "19% 0.27 0.14 0.11 0.29 0.19 0.15"),
  _row(152, "1.7400 1.7509", "22% 0.14 0.14 0.10 0.17 0.22 0.15"),
)

PAPER = Paper(
  title="Pan: the effect of depth",
  reference=(
    'Yufeng Pan, "Effect of the deep residual networks at different depths on'
    ' expression recognition", Hebei University of Technology.'
  ),
  protocol=(
    "The paper's accuracies are near chance though its losses are not, which"
    " fits predictions compared with labels in another order. So Table 2 is"
    " here twice: as it should be, and with our predictions compared with"
    " shuffled labels (expected values). Ours are of the epoch of the lowest"
    " validation loss, with early stopping after 10 epochs without improvement."
    " Learning rate and patience are not stated. The paper uses Keras; our"
    " ResNets are torchvision's, with the stride in the 3x3 convolutions."
    " ResNet-18 and 34 are our extension."
  ),
  rows=_ROWS,
  tables=(
    Table(
      "Table 1: loss of the best epoch", ("train_loss", "loss"), names(_ROWS)
    ),
    Table("Table 2: scores", _TABLE_2, names(_ROWS)),
    Table("Table 2 against shuffled labels", _SHUFFLED, names(_ROWS)),
  ),
  curves=(Curves("losses", "Figure 2: all depths", "loss", names(_ROWS)),),
)
