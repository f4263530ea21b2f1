"""The check of a whole configuration, before anything is read or compiled."""

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import choose, require
from fer_jax.training import losses
from fer_jax.training.optim import optimizers, schedules


def check(config: ConfigDict) -> None:
  """Checks what needs no data: names, options and ranges, also of the loss.

  The values of the optimizer, the schedule and early stopping are checked when
  these are created, which is before anything compiles too.

  Raises:
    UserError: for the first field that is wrong.
  """
  configs.check(config)
  losses.check(config.loss)
  for field in ("mixup", "cutmix"):
    value = config.augment[field]
    ok = not (value and config.loss.name == "multi_target")
    must = "be 0 with loss.name=multi_target, where both classes would count"
    require(ok, f"augment.{field}", value, must)
  choose("optimizer.name", config.optimizer.name, optimizers.NAMES)
  choose("schedule.name", config.schedule.name, schedules.NAMES)
