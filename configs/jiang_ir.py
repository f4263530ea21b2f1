"""Inverted residual, then residual blocks, as Jiang et al. trained it.

python -m fer_jax.train --config=configs/jiang_ir.py

The paper got 75.72 % (loss 1.1) on FER+, 95.92 % on CK+ (`:ckplus`).
Measured after the first epoch, once: validation accuracy 27.2 %, loss 2.090.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("bi_resnet_ir", dataset)
