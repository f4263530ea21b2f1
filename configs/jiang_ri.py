"""Jiang et al.'s network: residual, then inverted residual blocks.

python -m fer_jax.train --config=configs/jiang_ri.py

The paper got 81.98 % (loss 0.9803) on FER+, 97.41 % on CK+ (`:ckplus`).
docs/papers.md has what was trained so far.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("bi_resnet_ri", dataset)
