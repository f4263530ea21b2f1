"""ResNet-18 on FER2013, as in Pan's study of depth.

python -m fer_jax.train --config=configs/resnet18.py

Not in the paper, which starts at 50 layers: the shallow end of its question.
Measured once: validation loss 1.080, accuracy 62.1 % at epoch 16 of 26.
"""

from ml_collections import ConfigDict

from fer_jax.configs import pan


def get_config() -> ConfigDict:
  return pan.get_config("resnet18")
