"""Jiang et al.'s network of alternating residual and inverted residual blocks.

python -m fer_jax.train --config=configs/jiang_alternated.py

The paper got 79.36 % (loss 1.0313) on FER+, 96.70 % on CK+ (`:ckplus`).
docs/papers.md has what was trained so far.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("bi_resnet_alternated", dataset)
