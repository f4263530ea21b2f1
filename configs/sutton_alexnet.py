"""An AlexNet-like network on FER2013, as Sutton trained it.

python -m fer_jax.train --config=configs/sutton_alexnet.py:A

Runs: A (batch 256, learning rate .005, 50 epochs), B (128, .005, 50),
C (128, .007, 20). The paper got 58.36, 59.33 and 57.68 % on PublicTest and
PrivateTest together, recomputed from its confusion matrices.
Measured once each, highest validation accuracy: A 53.6, B 55.1, C 54.7 %.
"""

from ml_collections import ConfigDict

from fer_jax.configs import sutton
from fer_jax.errors import choose

# Batch size, learning rate, epochs.
RUNS = {"A": (256, 0.005, 50), "B": (128, 0.005, 50), "C": (128, 0.007, 20)}


def get_config(run: str = "A") -> ConfigDict:
  choose("run of sutton_alexnet", run, RUNS)
  return sutton.get_config("alexnet", *RUNS[run])
