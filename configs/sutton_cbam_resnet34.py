"""ResNet-34 with attention modules (CBAM) on FER2013, as Sutton trained it.

python -m fer_jax.train --config=configs/sutton_cbam_resnet34.py:C

Runs: A (batch 128, learning rate .005, 50 epochs), B (64, .005, 50), C (128,
.007, 20). The paper got 57.43 %, in epochs that it does not state, and 59.74 %
in 50, on PublicTest and PrivateTest together, recomputed from its confusion
matrices. Another arrangement of CBAM: --config.model.attention=parallel.
Measured once each, highest validation accuracy: A 53.1, C 55.1 %.
"""

from ml_collections import ConfigDict

from fer_jax.configs import sutton
from fer_jax.errors import choose

# Batch size, learning rate, epochs. Paper: batches of 128 and 64, as memory
# did not allow 256; learning rates not stated, so those of its other models.
RUNS = {"A": (128, 0.005, 50), "B": (64, 0.005, 50), "C": (128, 0.007, 20)}


def get_config(run: str = "A") -> ConfigDict:
  choose("run of sutton_cbam_resnet34", run, RUNS)
  return sutton.get_config("cbam_resnet34", *RUNS[run])
