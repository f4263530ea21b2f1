"""MobileNetV2, the baseline, as Jiang et al. trained it.

python -m fer_jax.train --config=configs/jiang_mobilenet_v2.py

The paper got 66.68 % (loss 1.342) on FER+ from scratch, and 79.9 % (1.0209)
by transfer learning: --config.init_from=timm:mobilenet_v2
Measured once: validation accuracy 65.0 %, loss 1.133, at epoch 67 of 100.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("mobilenet_v2", dataset)
