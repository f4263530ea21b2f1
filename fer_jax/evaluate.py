r"""Evaluates trained models: scores with intervals, and a report with plots.

fer-jax evaluate --workdir=W[,W2 ...] [--split=test] [--checkpoint=best] \
  [--tta=ten_crop] [--output=W/report]

Several workdirs are an ensemble, the mean of their probabilities; its report is
W/report-ensemble. Splits are joined by "+": --split=validation+test. Results of
other splits stay in the report.
"""

from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, model_flags
from fer_jax.errors import UserError


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
    "workdir", None, "Runs or released models, comma-separated.", required=True
  )
  model_flags.define_checkpoint()
  model_flags.define_tta()
  flags.DEFINE_string("split", "test", "train, validation, test, or several.")
  flags.DEFINE_string("output", "", "Folder of the report, in W if unset.")
  flags.DEFINE_string("manual_dir", None, "Where the release's files lie now.")
  flags.DEFINE_string("data_dir", None, "Where the prepared data lie now.")


def main(argv: Sequence[str]) -> None:
  """Evaluates as the flags say."""
  del argv
  given = flags.FLAGS
  model_flags.start()
  from fer_jax.api import evaluate_model
  from fer_jax.object_stores import urls
  from fer_jax.pretrained import released

  workdirs = released.split_names(given.workdir)
  if not workdirs:
    raise UserError("workdir= names no run: give a folder of `fer-jax train`")
  folder = urls.to_path(given.output or default_output(workdirs))
  evaluate_model(
    workdirs,
    given.split,
    given.tta,
    checkpoint=given.checkpoint,
    output=folder,
    manual_dir=given.manual_dir,
    data_dir=given.data_dir,
    show=lambda results: print(results, flush=True),
  )
  print(f"wrote {folder / 'index.html'} with its plots and tables")


def default_output(workdirs: Sequence[str]) -> str:
  """Returns the folder of a report; an ensemble does not replace a run's.

  >>> default_output(["runs/a"]), default_output(["s3://b/a", "runs/b"])
  ('runs/a/report', 's3://b/a/report-ensemble')
  """
  name = "report" if len(workdirs) == 1 else "report-ensemble"
  return f"{workdirs[0].rstrip('/')}/{name}"


COMMAND = app.Command("evaluate", __doc__, define_flags, main)

if __name__ == "__main__":
  COMMAND.run()
