"""Sutton's comparison of AlexNet, ResNet-34 and CBAM on FER2013.

The matrices are those of the paper's figures 5, 6, 9, 10, 13, 18 and 20, of
7,178 images; figure 14 repeats figure 9 and is not among them.
"""

from fer_jax.studies.papers.definitions import (
  Curves,
  Paper,
  Row,
  Table,
  names,
)

_ROWS = (
  Row(
    "AlexNet, run A",
    "sutton_alexnet:A",
    {"stated": "58.35%"},
    matrix="""
      417 6 152 67 112 180 24
      25 48 11 6 4 17 0
      76 2 467 63 131 197 88
      59 2 69 1386 132 92 34
      100 2 115 104 662 233 17
      112 0 192 113 208 606 16
      29 1 96 40 40 22 603""",
  ),
  Row(
    "ResNet-34, run A",
    "sutton_resnet34:A",
    {"stated": "59.75%"},
    matrix="""
      463 3 102 80 116 166 28
      22 47 6 13 2 18 3
      122 2 407 67 131 196 99
      53 0 55 1447 88 97 34
      95 1 88 133 660 232 24
      131 2 162 122 218 582 30
      34 0 64 53 27 28 625""",
  ),
  Row(
    "AlexNet, run B",
    "sutton_alexnet:B",
    {"stated": "58.63%"},
    matrix="""
      498 4 82 84 127 144 19
      32 54 7 5 4 8 1
      121 2 408 69 144 202 78
      66 1 47 1414 121 87 38
      118 2 75 102 714 209 13
      152 3 144 100 265 559 24
      34 1 65 47 47 25 612""",
  ),
  Row(
    "ResNet-34, run B",
    "sutton_resnet34:B",
    {"stated": "60.36%"},
    matrix="""
      466 4 85 74 123 178 28
      26 47 11 3 2 18 4
      122 2 436 55 102 204 103
      60 2 50 1462 85 87 28
      97 5 83 126 662 234 26
      151 4 142 99 238 596 17
      30 0 77 48 29 21 626""",
  ),
  Row(
    "AlexNet, run C",
    "sutton_alexnet:C",
    {"stated": "57.67%"},
    matrix="""
      519 8 115 66 89 147 14
      24 56 10 6 1 14 0
      144 4 455 55 100 186 80
      103 2 62 1366 105 100 36
      197 4 105 114 580 212 21
      209 3 178 98 179 564 16
      45 3 81 43 38 21 600""",
  ),
  Row("ResNet-34, run C", "sutton_resnet34:C", {"stated": "60.93%"}),
  Row(
    "CBAM-ResNet-34, 20 epochs",
    "sutton_cbam_resnet34:C",
    matrix="""
      462 4 106 79 111 158 38
      27 43 9 7 5 19 1
      123 4 386 88 136 186 101
      60 0 41 1423 117 87 46
      123 2 98 132 645 214 19
      151 2 161 118 240 556 19
      23 0 81 66 32 22 607""",
  ),
  Row(
    "CBAM-ResNet-34, 50 epochs",
    "sutton_cbam_resnet34:A",
    matrix="""
      488 6 114 65 118 142 25
      28 50 9 6 5 12 1
      137 8 403 57 123 207 89
      54 0 54 1451 114 66 35
      89 1 77 116 709 221 20
      146 5 148 117 243 569 19
      28 0 71 52 39 23 618""",
  ),
)


# The paper's Figures 16, 17 and 19 compare CBAM with both networks.
_CBAM_BESIDE = {
  "B": "CBAM-ResNet-34, 50 epochs",
  "C": "CBAM-ResNet-34, 20 epochs",
}


def _curves(run: str) -> tuple[Curves, ...]:
  rows = tuple(name for name in names(_ROWS) if name.endswith(f"run {run}"))
  if run in _CBAM_BESIDE:
    rows += (_CBAM_BESIDE[run],)
  return tuple(
    Curves(f"{quantity}_{run.lower()}", f"Run {run}", quantity, rows)
    for quantity in ("accuracy", "loss")
  )


PAPER = Paper(
  title="Sutton: AlexNet, ResNet-34 and CBAM",
  reference=(
    'Christian Sutton, "Working with Facial Expression Recognition (FER-2013)'
    ' Dataset".'
  ),
  protocol=(
    "The paper evaluates on PublicTest and PrivateTest together (7,178 images),"
    " on which any choice of an epoch would be a choice on the test set; it"
    " does not say which epoch it takes. Ours are of the validation split"
    " (PublicTest), at the last epoch, where nothing is chosen, and at that of"
    " the highest validation accuracy. The accuracies that the paper states"
    " differ from those of its confusion matrices, which are recomputed here."
    " Its column of accuracies by class is one-vs-rest accuracy for two classes"
    " only, so recall and one-vs-rest accuracy are given, each by its name."
    " Run A has batches of 256, B and C of 128. The paper says of CBAM that its"
    " batches have 128 or 64 images and one training has 50 epochs; learning"
    " rates, and the epochs of the other training, are our choice. It states"
    " neither an optimizer nor augmentation; ours are SGD with momentum, and"
    " none."
  ),
  rows=_ROWS,
  tables=(
    Table(
      "Accuracy of the runs",
      ("stated", "accuracy", "last_accuracy", "macro_f1"),
      names(_ROWS),
    ),
    Table("Recall of each class", ("recalls",), names(_ROWS)),
    Table("One-vs-rest accuracy of each class", ("one_vs_rest",), names(_ROWS)),
  ),
  curves=tuple(curves for run in "ABC" for curves in _curves(run)),
  confusions=names(_ROWS),
)
