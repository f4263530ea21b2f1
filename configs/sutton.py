"""The recipe of Sutton's comparison, for any model: sutton_*.py share it.

python -m fer_jax.train --config=configs/sutton.py:alexnet

Christian Sutton, "Working with Facial Expression Recognition (FER-2013)
Dataset": an AlexNet-like network, ResNet-34 and ResNet-34 with CBAM on FER2013
(48x48; AlexNet at 32x32), in runs that differ in batch size, learning rate and
epochs. The paper evaluates on all 7,178 images of PublicTest and PrivateTest,
and does not state which epoch it takes.
"""

from ml_collections import ConfigDict

from fer_jax.configs import default


def get_config(
  model: str = "resnet34",
  batch_size: int = 256,
  learning_rate: float = 0.005,
  num_epochs: int = 50,
) -> ConfigDict:
  config = default.get_config()
  config.model.name = model

  config.dataset.name = "fer2013"
  if model == "alexnet":
    config.input.image_size = 32  # resized on the device
  config.input.normalization = "mean_std"  # Paper: not stated

  config.optimizer.name = "sgd"  # Paper: not stated
  config.optimizer.momentum = 0.9  # Paper: not stated
  config.optimizer.learning_rate = learning_rate
  config.schedule.name = "fixed"
  config.batch_size = batch_size
  config.num_epochs = num_epochs
  config.best_metric = "validation_accuracy"
  return config
