"""Residual, then inverted residual blocks, as Jiang et al. trained it.

python -m fer_jax.train --config=configs/jiang_ri.py

The paper got 81.98 % (loss 0.9803) on FER+, 97.41 % on CK+ (`:ckplus`).
Measured after the first 8 of its 100 epochs, once: validation accuracy 48.0 %,
loss 1.483, both better after every epoch.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("bi_resnet_ri", dataset)
