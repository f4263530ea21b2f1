"""ResNet-50, the baseline, as Jiang et al. trained it.

python -m fer_jax.train --config=configs/jiang_resnet50.py

The paper got 79.19 % (loss 1.0435) on FER+ from scratch, and 78.76 % (1.0395)
by transfer learning: --config.init_from=timm:resnet50
docs/papers.md has what was trained so far.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("resnet50", dataset)
