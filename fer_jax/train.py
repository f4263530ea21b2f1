r"""Trains a model.

python -m fer_jax.train --config=configs/resnet50.py \
  [--workdir=runs/NAME] [--config.FIELD=VALUE ...]

Every field is described in configs/default.py. The same command resumes a run
that was interrupted or killed.
"""

import logging as python_logging
import pathlib
import sys
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import config_flags

from fer_jax import errors
from fer_jax.training import compilation, loop, report
from fer_jax.training.interruption import Interrupted

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The recipe, a file of configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Where the run goes; runs/RECIPE-DATASET if not given."
)
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> None:
  """Trains as the flags say."""
  del argv
  recipe = config_flags.get_config_filename(flags.FLAGS["config"])
  if not pathlib.Path(recipe).is_file():
    raise errors.UserError(
      f"there is no recipe --config={recipe}: give a file such as"
      " configs/resnet50.py"
    )
  config = _CONFIG.value
  workdir = pathlib.Path(
    _WORKDIR.value or f"runs/{pathlib.Path(recipe).stem}-{config.dataset.name}"
  )
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().addFilter(_is_ours)
  compilation.use_cache(config.compilation_cache)
  try:
    summary = loop.train(config, workdir)
    print(report.closing(summary, str(workdir)))
  except Interrupted as e:
    print(e, file=sys.stderr)
    sys.exit(e.exit_code)


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Leaves out what orbax says of how its saving goes; errors it raises."""
  return "orbax" not in record.pathname


if __name__ == "__main__":
  errors.run(main)
