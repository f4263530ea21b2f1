"""The data of runs whose results are compared with each other.

Each run of a study, and each trial of a sweep, opens its dataset by itself.
Their results can be compared only if files were not added in between.
"""

import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import MissingRelease, UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.create_experiment import load_dataset

Description = dict[str, Any]  # as `Dataset.description` returns it


def selection(config: ConfigDict) -> str:
  """Returns what selects a run's data: two runs of one have the same data.

  Returns:
    The options of the dataset, without its folders, as JSON.
  """
  fields = {
    name: value
    for name, value in configs.to_json(config)["dataset"].items()
    if f"dataset.{name}" not in configs.RUNTIME_FIELDS
  }
  if config.overfit:
    fields |= {"overfit": config.overfit, "seed": config.seed}
  return json.dumps(fields, sort_keys=True)


def describe(config: ConfigDict) -> Description | None:
  """Describes the data that a run would be trained on now.

  Returns:
    The description; None if the release is not there.

  Raises:
    UserError: the data are wrong.
  """
  try:
    return load_dataset(config).description()
  except MissingRelease:
    return None


def read_description(
  workdir: pathlib.Path, config: ConfigDict
) -> Description | None:
  """Reads the description of the data that a run was trained on.

  Args:
    workdir: the run's folder.
    config: its configuration.

  Returns:
    The description; None if the workdir has no checkpoint of this
    configuration's data that can be read.
  """
  if not (workdir / "checkpoints").is_dir():
    return None
  try:
    with Checkpoints(workdir, read_only=True) as checkpoints:
      if checkpoints.latest_step is None:
        return None
      info = checkpoints.info()
  except UserError:  # Whatever reads more of it reports the damage.
    return None
  if selection(configs.from_json(info["config"])) != selection(config):
    return None
  return info.get("data")
