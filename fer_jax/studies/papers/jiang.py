"""Jiang et al.'s bi-directional residual networks on FER+ with ten classes."""

from fer_jax.studies.papers.definitions import (
  Curves,
  Paper,
  Row,
  Table,
  names,
)


def _row(
  name: str, recipe: str, accuracy: str, loss: str, init_from: str = ""
) -> Row:
  printed = {"accuracy": accuracy, "loss": loss}
  return Row(name, recipe, printed, init_from=init_from)


_TABLE_1 = (
  _row("ResNet-50", "jiang_resnet50", "79.19%", "1.0435"),
  _row(
    "ResNet-50, transfer",
    "jiang_resnet50",
    "78.76%",
    "1.0395",
    "ResNet-50 on FER2013",
  ),
  _row("MobileNet", "jiang_mobilenet", "61.54%", "1.3921"),
  _row(
    "MobileNet, transfer",
    "jiang_mobilenet",
    "81.12%",
    "1.0004",
    "MobileNet on FER2013",
  ),
  _row("MobileNetV2", "jiang_mobilenet_v2", "66.68%", "1.342"),
  _row(
    "MobileNetV2, transfer",
    "jiang_mobilenet_v2",
    "79.9%",
    "1.0209",
    "MobileNetV2 on FER2013",
  ),
  _row("Alternated", "jiang_alternated", "79.36%", "1.0313"),
  _row("IR", "jiang_ir", "75.72%", "1.1"),
  _row("RI", "jiang_ri", "81.98%", "0.9803"),
)
_SOURCES = (
  Row("ResNet-50 on FER2013", "pan:resnet50"),
  Row("MobileNet on FER2013", "pan:mobilenet"),
  Row("MobileNetV2 on FER2013", "pan:mobilenet_v2"),
)
_FROM_SCRATCH = tuple(row.name for row in _TABLE_1 if not row.init_from)

PAPER = Paper(
  title="Jiang et al.: bi-directional residual networks",
  reference=(
    "Daihong Jiang, Sanyou Zhang, Cheng Yu and Chuangeng Tian,"
    ' "A Bi-directional Residual Network for Image Expression Recognition",'
    " Xuzhou University of Technology and China University of Mining and"
    " Technology."
  ),
  protocol=(
    "FER+ with ten classes. The paper aligns the faces first; ours are FER+'s"
    " images as they are. Its text reads as if the baselines had the dense"
    " layers of 2048 and 1024 units of its own networks, too; ours have one"
    " layer, as published. The paper states neither the numbers of blocks nor"
    " the epochs on FER+, so ours (100 epochs; the alternated network has a"
    " quarter of ResNet-50's channels) are a choice. It does not say from which"
    " weights its transfer rows start, nor which epoch it takes; ours start"
    " from the same network trained on the training images of FER2013, which"
    " are those of FER+ with other labels, and are of the epoch of the highest"
    " validation accuracy. Its figures are of a test set, and its loss is that"
    " of sigmoid outputs; ours is of softmax, so the two are not comparable."
    " Nor does it say how ten votes become one class. Here, as FER+'s authors"
    " do it, an image without a majority is `unknown`: 367 of the 3,589"
    " validation images; 13 have a majority for `unknown`. The most-voted class"
    " is another choice, which this comparison does not make."
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
