"""ResNet-50 on FER2013, as in Pan's study of depth.

python -m fer_jax.train --config=configs/resnet50.py

The paper got training loss 1.7006, validation loss 1.7599, accuracy .18: at
chance though its losses are not, as if predictions had been compared with
shuffled labels. About 30 minutes on Colab. Measured here, the first three
epochs: training loss 1.895, 1.657, 1.566, validation loss 2.005, 1.671, 1.748,
validation accuracy 33.2, 34.5, 35.9 %.
"""

from ml_collections import ConfigDict

from fer_jax.configs import pan


def get_config() -> ConfigDict:
  return pan.get_config("resnet50")
