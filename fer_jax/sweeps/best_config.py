"""The best trial as a recipe: a file that fer_jax.train takes."""

import pathlib
import shlex

from fer_jax import config as configs
from fer_jax.configs import default
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.trials import Trial, format_score

NAME = "best_config.py"


def command_of(plan: Plan, path: pathlib.Path) -> str:
  """Returns the command that trains the recipe."""
  flags = [f"--config={path}", f"--workdir={plan.workdir / 'best'}"]
  return f"python -m fer_jax.train {shlex.join(flags)}"


def to_recipe(
  plan: Plan, best: Trial, num_trials: int, path: pathlib.Path
) -> str:
  """Returns the text of the recipe: what differs from configs/default.py.

  Args:
    plan: of the sweep.
    best: its best trial.
    num_trials: the number of its trials.
    path: where the recipe will be.
  """
  score = format_score(best.score, plan.metric)
  lines = [
    f'"""The best of {num_trials} trials: {plan.metric.replace("_", " ")}'
    f" {score}.",
    "",
    command_of(plan, path).replace("\\", "\\\\").replace('"', '\\"'),
    "",
    f"Trial {best.number} reached that in epoch {best.best_epoch}, on"
    " validation images.",
    '"""',
    "",
    "from ml_collections import ConfigDict",
    "",
    "from fer_jax.configs import default",
    "",
    "",
    "def get_config() -> ConfigDict:",
    "  config = default.get_config()",
  ]
  defaults = configs.flatten(default.get_config())
  searched = plan.space.parameters
  for field, value in configs.flatten(plan.configure(best.point)).items():
    if field in searched:
      lines.append(f"  config.{field} = {value!r}  # searched")
    elif value != defaults.get(field):
      lines.append(f"  config.{field} = {value!r}")
  return "\n".join([*lines, "  return config", ""])
