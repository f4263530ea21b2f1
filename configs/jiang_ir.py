"""Jiang et al.'s network: inverted residual, then residual blocks.

python -m fer_jax.train --config=configs/jiang_ir.py

The paper got 75.72 % (loss 1.1) on FER+, 95.92 % on CK+ (`:ckplus`).
docs/papers.md has what was trained so far.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("bi_resnet_ir", dataset)
