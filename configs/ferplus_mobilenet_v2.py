"""MobileNetV2 on FER+'s vote distributions.

python -m fer_jax.train --config=configs/ferplus_mobilenet_v2.py

The first convolution has stride 1, so that the last feature maps are 3x3. It
learns from `ferplus-resnet18`, as `ferplus_resnet18.py:half` does, which has
about as many parameters. Not trained to the end yet.
"""

from ml_collections import ConfigDict

from fer_jax.configs import ferplus_resnet18


def get_config() -> ConfigDict:
  config = ferplus_resnet18.get_config("half")
  config.model.name = "mobilenet_v2"
  config.model.stem = "small"
  config.model.width = 1.0
  config.model.zero_init_residual = None
  config.model.dropout = 0.2
  config.dtype = "bfloat16"
  config.optimizer.weight_decay = 1e-4
  config.num_epochs = 120
  return config
