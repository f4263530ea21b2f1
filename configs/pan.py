"""The recipe of Pan's study of depth, for any model: resnet*.py share it.

python -m fer_jax.train --config=configs/pan.py:resnet34

Yufeng Pan, "Effect of the deep residual networks at different depths on
expression recognition": FER2013 at 48x48, pixels to 0..1, shifted images, Adam,
batches of 32, up to 50 epochs, the checkpoint of the lowest validation loss.
"""

from ml_collections import ConfigDict

from fer_jax.configs import default


def get_config(model: str = "resnet50") -> ConfigDict:
  config = default.get_config()
  # Paper: Keras' ResNets, which stride in the first 1x1 convolution of a block;
  # ours are torchvision's, which stride in the 3x3 convolution.
  config.model.name = model

  config.dataset.name = "fer2013"
  config.input.normalization = "unit"
  config.augment.shift = 0.1  # "altering width and height"
  config.augment.fill = "nearest"  # Paper: not stated; Keras' default

  config.optimizer.name = "adam"
  config.optimizer.learning_rate = 1e-3  # Paper: not stated; Keras' default
  config.schedule.name = "fixed"
  config.batch_size = 32
  config.num_epochs = 50
  config.best_metric = "validation_loss"
  config.early_stopping.patience = 10  # Paper: early stopping, not how long
  return config
