"""Jiang et al.'s bi-directional residual networks on FER+ with ten classes."""

from fer_jax.studies.papers.definitions import (
  Curves,
  Paper,
  Row,
  Table,
  names,
)


def _row(
  name: str, recipe: str, accuracy: float, loss: float, init_from: str = ""
) -> Row:
  printed = {"accuracy": accuracy, "loss": loss}
  return Row(name, recipe, printed, init_from=init_from)


_TABLE_1 = (
  _row("ResNet-50", "jiang_resnet50", 0.7919, 1.0435),
  _row(
    "ResNet-50, transfer",
    "jiang_resnet50",
    0.7876,
    1.0395,
    "ResNet-50 on FER2013",
  ),
  _row("MobileNet", "jiang_mobilenet", 0.6154, 1.3921),
  _row(
    "MobileNet, transfer",
    "jiang_mobilenet",
    0.8112,
    1.0004,
    "MobileNet on FER2013",
  ),
  _row("MobileNetV2", "jiang_mobilenet_v2", 0.6668, 1.342),
  _row(
    "MobileNetV2, transfer",
    "jiang_mobilenet_v2",
    0.799,
    1.0209,
    "MobileNetV2 on FER2013",
  ),
  _row("Alternated", "jiang_alternated", 0.7936, 1.0313),
  _row("IR", "jiang_ir", 0.7572, 1.1),
  _row("RI", "jiang_ri", 0.8198, 0.9803),
)
_SOURCES = (
  Row("ResNet-50 on FER2013", "pan:resnet50"),
  Row("MobileNet on FER2013", "pan:mobilenet"),
  Row("MobileNetV2 on FER2013", "pan:mobilenet_v2"),
)
_FROM_SCRATCH = tuple(row.name for row in _TABLE_1 if not row.init_from)

PAPER = Paper(
  title="Jiang et al.: bi-directional residual networks",
  protocol=(
    "FER+ with ten classes. The paper does not give the numbers of blocks and"
    " of epochs on FER+, so ours (100 epochs) are a choice, and it does not say"
    " which epoch it takes. Its transfer rows start from ImageNet weights; ours"
    " start from the same network trained on the training images of FER2013,"
    " which are those of FER+ with other labels. Ours are of the epoch of the"
    " highest validation accuracy."
  ),
  rows=(*_TABLE_1, *_SOURCES),
  tables=(Table("Table 1", ("accuracy", "loss", "macro_f1"), names(_TABLE_1)),),
  curves=(
    Curves("accuracies", "From scratch", "accuracy", _FROM_SCRATCH),
    Curves("losses", "From scratch", "loss", _FROM_SCRATCH),
  ),
  notes=(
    "Table 2 (CK+: alternated 96.70 %, RI 97.41 %, IR 95.92 %) needs CK+, which"
    " its authors give on request. With it,"
    " `fer-jax cross-validate --config=jiang_ri:ckplus` (`jiang_alternated`,"
    " `jiang_ir`) pools ten folds in which no person is both in training and in"
    " test; the paper does not say how it splits CK+."
  ),
)
