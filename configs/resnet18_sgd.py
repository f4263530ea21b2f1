"""ResNet-18 with a plain modern recipe.

python -m fer_jax.train --config=configs/resnet18_sgd.py

SGD with Nesterov momentum, one cycle of the learning rate, shift, flip and
rotation, label smoothing. Not of a paper: the baseline to hold them against.
Measured once: 64.5 % on FER2013's validation split, at the last epoch and still
rising, in 72 minutes on two cores that had other work too.
"""

from ml_collections import ConfigDict

from fer_jax.configs import default


def get_config() -> ConfigDict:
  config = default.get_config()
  config.model.name = "resnet18"

  config.input.normalization = "mean_std"
  config.augment.shift = 0.1
  config.augment.flip = True
  config.augment.rotation = 10.0

  config.optimizer.name = "sgd"
  config.optimizer.learning_rate = 0.1
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = "linear"
  config.schedule.warmup_epochs = 4.0
  config.loss.label_smoothing = 0.1
  config.batch_size = 128
  config.num_epochs = 20
  config.best_metric = "validation_accuracy"
  return config
