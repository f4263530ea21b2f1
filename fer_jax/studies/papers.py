"""The tables of the five papers: which runs make them, and what they printed.

Figures are fractions, recomputed from the papers' own confusion matrices where
their text disagrees with these. PublicTest is `validation` here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of a paper's table.

  Attributes:
    name: as the table here calls it.
    recipe: a recipe of configs/ and the choice after a colon, if any.
    accuracy: the paper's; None where it prints none.
    loss: the paper's evaluation loss.
    train_loss: the paper's training loss.
    overrides: of fields of the recipe, by dotted name.
  """

  name: str
  recipe: str
  accuracy: float | None = None
  loss: float | None = None
  train_loss: float | None = None
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Paper:
  """What a paper reports.

  Attributes:
    title: of the section.
    protocol: how the paper's figures and ours differ, for readers.
    rows: of its tables.
  """

  title: str
  protocol: str
  rows: tuple[Row, ...]


_RATE, _BATCH_NORM = "optimizer.learning_rate", "model.batch_norm"

PAPERS: dict[str, Paper] = {
  "pan": Paper(
    "Pan: the effect of depth",
    "The paper's accuracies are near chance though its losses are not, which"
    " fits predictions compared with labels in another order; its rows are"
    " 50, 101 and 152 layers deep. Ours are of the validation split, at the"
    " epoch of the lowest validation loss, with early stopping.",
    (
      Row("ResNet-18", "resnet18"),
      Row("ResNet-34", "resnet34"),
      Row("ResNet-50", "resnet50", 0.18, 1.7599, 1.7006),
      Row("ResNet-101", "resnet101", 0.19, 1.7232, 1.7495),
      Row("ResNet-152", "resnet152", 0.22, 1.7509, 1.7400),
    ),
  ),
  "sutton": Paper(
    "Sutton: AlexNet, ResNet-34 and CBAM",
    "The paper evaluates on PublicTest and PrivateTest together and does not"
    " say which epoch it takes. Ours are of the validation split alone, at the"
    " epoch of the highest validation accuracy.",
    (
      Row("AlexNet, run C", "sutton_alexnet:C", 0.5768),
      Row("AlexNet, run A", "sutton_alexnet:A", 0.5836),
      Row("AlexNet, run B", "sutton_alexnet:B", 0.5933),
      Row("ResNet-34, run A", "sutton_resnet34:A", 0.5894),
      Row("ResNet-34, run B", "sutton_resnet34:B", 0.5984),
      Row("CBAM-ResNet-34, run C", "sutton_cbam_resnet34:C", 0.5743),
      Row("CBAM-ResNet-34, run A", "sutton_cbam_resnet34:A", 0.5974),
    ),
  ),
  "jiang": Paper(
    "Jiang et al.: bi-directional residual networks",
    "FER+ with ten classes, from scratch. The number of blocks is not given in"
    " the paper, so ours is a choice. Transfer rows need ImageNet weights"
    " (`init_from`) and are not among these.",
    (
      Row("MobileNet", "jiang_mobilenet", 0.6154, 1.3921),
      Row("MobileNetV2", "jiang_mobilenet_v2", 0.6668, 1.342),
      Row("RI", "jiang_ri", 0.8198, 0.9803),
      Row("IR", "jiang_ir", 0.7572, 1.1),
      Row("Alternated", "jiang_alternated", 0.7936, 1.0313),
      Row("ResNet-50", "jiang_resnet50", 0.7919, 1.0435),
    ),
  ),
  "lewis": Paper(
    "Lewis et al.: fine-tuned ImageNet ResNets",
    "At 224 pixels from ImageNet weights, which are downloaded.",
    (
      Row("ResNet-18", "lewis_resnet18", 0.6996),
      Row("ResNet-50", "lewis_resnet50", 0.7016),
    ),
  ),
  "chang": Paper(
    "Chang: happy, neutral and sad",
    "The paper prints no figures; it finds that a learning rate of 0.01"
    " overshoots, that 100 epochs overfit, and that dropout, batch"
    " normalization and LeakyReLU help.",
    (
      Row("8 epochs, learning rate 0.001", "chang_cnn"),
      Row("learning rate 0.01", "chang_cnn", overrides={_RATE: 0.01}),
      Row(
        "without dropout and BatchNorm",
        "chang_cnn",
        overrides={"model.dropout": 0.0, _BATCH_NORM: False},
      ),
      Row("ReLU", "chang_cnn", overrides={"model.activation": "relu"}),
      Row("100 epochs", "chang_cnn", overrides={"num_epochs": 100}),
    ),
  ),
}
