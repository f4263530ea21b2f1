"""Lewis's search of the learning rate and the weight decay.

python -m fer_jax.sweep --config=configs/lewis_resnet18.py:small \
  --space=configs/sweeps/lewis.py

The paper searches these ten points by a Bayesian method; --trials=7 stops
before all are trained. Then it goes through a grid that adds the schedule:

python -m fer_jax.sweep --config=configs/lewis_resnet18.py:small \
  --space=configs/sweeps/lewis.py:grid --sampler=grid --pruner=none \
  --workdir=runs/sweep_grid
"""

from typing import Any

from fer_jax.errors import choose
from fer_jax.sweeps.space import Choice

STAGES = ("bayesian", "grid")


def get_space(stage: str = "bayesian") -> dict[str, Any]:
  choose("stage of Lewis' search", stage, STAGES)
  space: dict[str, Any] = {
    "optimizer.learning_rate": Choice((1e-4, 5e-4, 1e-3, 3e-3, 5e-3)),
    "optimizer.weight_decay": Choice((0.0, 1e-4)),
    "num_epochs": 15,
    "best_metric": "validation_loss",
  }
  if stage == "grid":
    space["schedule.name"] = Choice(("fixed", "linear"))
  return space
