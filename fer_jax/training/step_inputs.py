"""What a compiled step is given, and what is compiled into it.

Runs that differ only in what is given share what is compiled.
"""

import json
from typing import NamedTuple

from jaxtyping import Array, Float32, Key
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.training.optim.schedules import Schedule

# What of a configuration is compiled into steps, beside the model.
_SECTIONS = ("input", "augment", "optimizer", "loss", "ema_decay")
# But for these of `optimizer`, which are in `RunInputs`.
_GIVEN = ("learning_rate", "weight_decay")


class RunInputs(NamedTuple):
  """What is the same in all steps of a run, but no constant of the program.

  Attributes:
    rng: key of augmentation and dropout; steps fold their number into it.
    schedule: learning rate by updates done.
    weight_decay: as in `optimizers`.
  """

  rng: Key[Array, ""]
  schedule: Schedule
  weight_decay: Float32[Array, ""]


def compiled_fields(config: ConfigDict) -> str:
  """What of a configuration is compiled in, as JSON.

  Args:
    config: a whole one.
  """
  fields = configs.to_json(config)
  kept = {name: fields[name] for name in _SECTIONS}
  kept["optimizer"] = {
    name: value
    for name, value in kept["optimizer"].items()
    if name not in _GIVEN
  }
  return json.dumps(kept, sort_keys=True)
