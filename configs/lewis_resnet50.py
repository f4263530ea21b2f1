"""ResNet-50, from ImageNet weights, as Lewis fine-tuned it.

python -m fer_jax.train --config=configs/lewis_resnet50.py

On a laptop --config=configs/lewis_resnet50.py:small, at 48 pixels. lewis.py
lists the values of --config.init_from; an empty one trains from scratch.
The paper got 70.16 % on PublicTest (precision 71.22, recall 69.39, F1 70.29).
"""

from ml_collections import ConfigDict

from fer_jax.configs import lewis


def get_config(size: str = "full") -> ConfigDict:
  return lewis.get_config(f"resnet50,{size}")
