"""Which runs can be trained together: those that compile to the same steps."""

import json
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError

# In these runs trained together may differ: they are inputs of steps, or read
# on the host only.
VARYING = (
  "optimizer.learning_rate",
  "optimizer.weight_decay",
  "schedule",
  "seed",
)


def groups(of: Sequence[ConfigDict]) -> list[list[int]]:
  """Sorts runs into groups that can be trained together.

  Args:
    of: the runs' configurations.

  Returns:
    Their places, group by group, in order.
  """
  found: dict[str, list[int]] = {}
  for i, config in enumerate(of):
    key = json.dumps(_common_fields(config), sort_keys=True)
    found.setdefault(key, []).append(i)
  return list(found.values())


def check(of: Sequence[ConfigDict]) -> None:
  """Checks that runs can be trained together.

  Raises:
    UserError: one differs from the first in a field that has to be the same.
  """
  first = _common_fields(of[0])
  for i, config in enumerate(of[1:], 1):
    fields = _common_fields(config)
    for name, value in first.items():
      if fields[name] != value:
        raise UserError(
          f"runs trained together differ in {', '.join(VARYING)} only, but"
          f" {name} is {value!r} in the first and {fields[name]!r} in run"
          f" {i + 1}: train that one apart"
        )


def _common_fields(config: ConfigDict) -> dict[str, Any]:
  """What runs trained together have in common, by dotted name."""
  fields = configs.flatten(configs.to_json(config))
  common = {
    name: value
    for name, value in fields.items()
    if name not in VARYING and name.partition(".")[0] not in VARYING
  }
  # An array of a schedule, of which only the values may differ.
  common["schedule.step_epochs (number)"] = len(config.schedule.step_epochs)
  # It draws the images, of which there is one set for all.
  common["seed (with overfit)"] = config.seed if config.overfit else None
  return common
