"""MobileNet v1, the baseline, as Jiang et al. trained it.

python -m fer_jax.train --config=configs/jiang_mobilenet.py

The paper got 61.54 % (loss 1.3921) on FER+ from scratch, and 81.12 % (1.0004)
by transfer learning: --config.init_from=timm:mobilenet
--config.input.normalization=mean_std --config.input.mean="(0.5,)"
--config.input.std="(0.5,)"
Measured once, from scratch: validation accuracy 65.2 %, loss 1.327, at the last
of 100 epochs.
"""

from ml_collections import ConfigDict

from fer_jax.configs import jiang


def get_config(dataset: str = "ferplus") -> ConfigDict:
  return jiang.get_config("mobilenet", dataset)
