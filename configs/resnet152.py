"""ResNet-152 on FER2013, as in Pan's study of depth.

python -m fer_jax.train --config=configs/resnet152.py

The paper got training loss 1.7400, validation loss 1.7509, accuracy .22: at
chance though its losses are not, as if predictions had been compared with
shuffled labels. About 30 minutes on Colab.
"""

from ml_collections import ConfigDict

from fer_jax.configs import pan


def get_config() -> ConfigDict:
  return pan.get_config("resnet152")
