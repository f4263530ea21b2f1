r"""Says what a trained model is worth, in numbers and pictures.

python -m fer_jax.evaluate --workdir=W[,W2 ...] [--split=test] \
  [--checkpoint=best] [--tta=ten_crop] [--output=W/report]

Several workdirs are an ensemble: the mean of their probabilities. Splits are
joined by "+": --split=validation+test.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.evaluation import predictions, report, tta
from fer_jax.inference.trained_model import CHECKPOINTS
from fer_jax.pretrained import released


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list(
    "workdir", None, "Runs of fer_jax.train, by commas.", required=True
  )
  flags.DEFINE_enum(
    "checkpoint", "best", CHECKPOINTS, "Which of their weights."
  )
  flags.DEFINE_string("split", "test", "train, validation, test, or some by +.")
  flags.DEFINE_enum("tta", "none", list(tta.VIEWS), "Views to average over.")
  flags.DEFINE_string(
    "output", "", "The folder; the first workdir's report if not given."
  )
  flags.DEFINE_string("manual_dir", None, "Where the release lies now.")
  flags.DEFINE_string("data_dir", None, "Where prepared data lie now.")


def main(argv: Sequence[str]) -> None:
  """Evaluates as the flags say."""
  del argv
  given = flags.FLAGS
  command.start()
  if not given.workdir:
    raise errors.UserError(
      "--workdir= names no run: give a folder that python -m fer_jax.train has"
      " written"
    )
  trained = [
    released.load_model(name, given.checkpoint) for name in given.workdir
  ]
  found = report.results_of(
    predictions.predict(
      trained, given.split, given.tta, given.manual_dir, given.data_dir
    ),
    given.tta,
  )
  print(found)
  folder = Path(given.output or trained[0].workdir / "report").expanduser()
  *_, page = report.write(found, trained, folder)
  print(f"wrote {page} and what it shows")


if __name__ == "__main__":
  define_flags()
  errors.run(main)
