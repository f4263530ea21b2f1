"""The check of a whole configuration, before anything is read or compiled."""

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.training import losses


def check(config: ConfigDict) -> None:
  """Checks what needs no data: names, options and ranges, also of the loss.

  The optimizer, the schedule and early stopping check their own sections when
  they are created, which is before anything compiles too.

  Raises:
    UserError: for the first field that is wrong.
  """
  configs.check(config)
  losses.check(config.loss)
