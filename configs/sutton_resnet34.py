"""ResNet-34 on FER2013, as Sutton trained it.

python -m fer_jax.train --config=configs/sutton_resnet34.py:A

Runs: A (batch 256, learning rate .005, 50 epochs), B (128, .005, 35),
C (128, .007, 20). The paper got 58.94 and 59.84 % in A and B on PublicTest and
PrivateTest together, recomputed from its confusion matrices; for C it states
60.93 %.
Measured once each, highest validation accuracy: A 52.2, B 52.7, C 52.6 %.
"""

from ml_collections import ConfigDict

from fer_jax.configs import sutton
from fer_jax.errors import choose

# Batch size, learning rate, epochs.
RUNS = {"A": (256, 0.005, 50), "B": (128, 0.005, 35), "C": (128, 0.007, 20)}


def get_config(run: str = "A") -> ConfigDict:
  choose("run of sutton_resnet34", run, RUNS)
  return sutton.get_config("resnet34", *RUNS[run])
