"""ResNet-50 on FER2013, as in Pan's study of depth.

python -m fer_jax.train --config=configs/resnet50.py

The paper got training loss 1.7006, validation loss 1.7599, accuracy .18: at
chance though its losses are not, as if predictions had been compared with
shuffled labels. About 30 minutes on Colab. Measured once, on two CPU cores:
stopped early after 37 epochs in 81 minutes, best epoch 27, training loss .765,
validation loss 1.077, accuracy 61.7 %.
"""

from ml_collections import ConfigDict

from fer_jax.configs import pan


def get_config() -> ConfigDict:
  return pan.get_config("resnet50")
