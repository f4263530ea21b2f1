"""ResNet-34, as in Pan's depth study.

python -m fer_jax.train --config=configs/resnet34.py
"""

from ml_collections import ConfigDict

from fer_jax.configs import pan


def get_config() -> ConfigDict:
  return pan.get_config("resnet34")
