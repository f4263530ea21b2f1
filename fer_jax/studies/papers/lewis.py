"""Lewis's ResNets, fine-tuned on FER2013 with AdaFactor."""

from fer_jax.studies.papers.definitions import Curves, Paper, Row, Table, names

_SMALL = "lewis_resnet18:small"
_SCRATCH = {"init_from": ""}
_IMAGENET = (
  Row("ResNet-18, ImageNet", "lewis_resnet18", {"accuracy": "69.96%"}),
  Row(
    "ResNet-50, ImageNet",
    "lewis_resnet50",
    {
      "accuracy": "70.16%",
      "macro_precision": "0.7122",
      "macro_recall": "0.6939",
      "macro_f1": "0.7029",
    },
  ),
)
_FER_PLUS = Row(
  "ResNet-18 on FER+",
  _SMALL,
  overrides=_SCRATCH | {"dataset.name": "ferplus"},
)
_OURS = (
  Row("ResNet-18, scratch, 48 pixels", _SMALL, overrides=_SCRATCH),
  Row("ResNet-18, FER+, 48 pixels", _SMALL, init_from=_FER_PLUS.name),
  Row(
    "ResNet-18, FER+, 48 pixels, warm-up and cosine",
    _SMALL,
    overrides={"schedule.name": "cosine", "schedule.warmup_epochs": 1.0},
    init_from=_FER_PLUS.name,
  ),
)
_OPTIMIZERS = tuple(
  Row(
    f"{title} from scratch",
    _SMALL,
    overrides={
      **_SCRATCH,
      "optimizer.name": name,
      "optimizer.learning_rate": 5e-4,
      "schedule.name": "fixed",
      "batch_size": 64,
      "num_epochs": 10,
    },
  )
  for name, title in (
    ("adafactor", "AdaFactor"),
    ("adamw", "AdamW"),
    ("sgd", "SGD"),
  )
)
_TABLE_1 = ("accuracy", "macro_precision", "macro_recall", "macro_f1")

PAPER = Paper(
  title="Lewis: fine-tuned ResNets",
  reference=(
    'Christopher Lewis, "Fine-tuning an Image Classification Model to Perform'
    ' Facial Expression Recognition", University of Massachusetts Lowell.'
  ),
  protocol=(
    "The paper fine-tunes ImageNet weights at 224 pixels for 30 epochs, and"
    " both chooses the epoch and reports on PublicTest, as we do on the same"
    " split. ImageNet weights are downloaded (`init_from=timm:resnet18`). Rows"
    " at 48 pixels start from random weights, or from the same network trained"
    " on FER+ (the training images of FER2013 with other labels) by the same"
    " recipe: another expression dataset first is the paper's future work, as"
    " are warm-up and cosine annealing. The paper does not say how precision,"
    " recall and F1 are averaged over classes: its F1 is the harmonic mean of"
    " its precision and recall, ours the mean of the classes' F1. It says that"
    " ResNet-18 is 0.2 points below ResNet-50, from which 69.96 % is computed."
  ),
  rows=(*_IMAGENET, *_OURS, _FER_PLUS, *_OPTIMIZERS),
  tables=(
    Table("Table I", _TABLE_1, (*names(_IMAGENET), *names(_OURS))),
    Table(
      "Table II: accuracy beside baselines",
      ("accuracy",),
      (*names(_IMAGENET), *names(_OURS)),
      baselines={
        "CNN (Liu et al.)": "62.44%",
        "GoogleNet (Giannopoulos et al.)": "65.20%",
        "Estimated human performance": "65.50%",
        "VGG and SVM (Georgescu et al.)": "66.31%",
        "Convolutions and Inception (Mollahosseini et al.)": "66.40%",
        "Bag of words (Ionescu et al.)": "67.40%",
        "Attentional ConvNet": "70.02%",
      },
    ),
    Table(
      "Optimizers at a fixed 5e-4, 10 epochs",
      ("accuracy", "last_accuracy", "last_train_loss", "last_train_accuracy"),
      names(_OPTIMIZERS),
    ),
  ),
  curves=(
    Curves(
      "accuracies",
      "The rows of Table I",
      "accuracy",
      (*names(_IMAGENET), *names(_OURS)),
    ),
    Curves(
      "losses",
      "The rows of Table I",
      "loss",
      (*names(_IMAGENET), *names(_OURS)),
    ),
    Curves("optimizers", "Optimizers", "loss", names(_OPTIMIZERS)),
  ),
  confusions=(*names(_IMAGENET), *names(_OURS)),
  notes=(
    "The search of learning rate, weight decay and schedule (Figure 3) is"
    " `fer-jax sweep --config=lewis_resnet18:small --space=lewis`, with its own"
    " report."
  ),
)
