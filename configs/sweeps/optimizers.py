"""Lewis's comparison of optimizers, at one fixed learning rate.

python -m fer_jax.sweep --config=configs/lewis_resnet18.py:small \
  --space=configs/sweeps/optimizers.py --sampler=grid --pruner=none \
  --workdir=runs/optimizers
"""

from typing import Any

from fer_jax.sweeps.space import Choice


def get_space() -> dict[str, Any]:
  return {
    "optimizer.name": Choice(("sgd", "adamw", "adafactor")),
    "optimizer.learning_rate": 5e-4,
    "schedule.name": "fixed",
    "batch_size": 64,
    "num_epochs": 10,
  }
