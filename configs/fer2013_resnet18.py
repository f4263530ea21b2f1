"""ResNet-18 on FER2013, trained for accuracy; no paper's recipe.

python -m fer_jax.train --config=configs/fer2013_resnet18.py

From scratch, without other data, chosen by the validation split (PublicTest).
The stem keeps all 48 pixels, 13 times the compute of the ImageNet stem: for a
GPU. Measured on an H100 that trained six other models meanwhile: seed 0,
90 epochs in 5 minutes, validation accuracy 70.9 %.

`:half` is the same network with half the channels and a quarter of the pixels
in its first stages, 6 % of the compute: for a CPU. Measured with the full one
as its teacher (--config.loss.teacher=RUN --config.loss.teacher_weight=0.7) and
80 epochs, seed 0: 68.8 % in an hour on two cores beside other work.

`:tuned` fine-tunes the released model `ferplus-resnet18`, which has seen the
same training images with FER+'s labels. Measured, seed 0: 71.4 % in 69 minutes
on two cores that multiply bfloat16 (Intel AMX).
"""

from ml_collections import ConfigDict

from fer_jax.configs import default
from fer_jax.errors import choose

VARIANTS = ("full", "half", "tuned")


def get_config(variant: str = "full") -> ConfigDict:
  choose("variant of fer2013_resnet18", variant, VARIANTS)
  config = default.get_config()
  config.model.name = "resnet18"
  config.model.stem = "small"
  config.model.zero_init_residual = True

  config.dataset.name = "fer2013"
  config.input.normalization = "mean_std"
  config.augment.flip = True
  config.augment.shift = 0.1
  config.augment.rotation = 12.0  # degrees
  config.augment.zoom = 0.15
  config.augment.contrast = 0.3
  config.augment.random_erasing = 0.4
  config.augment.mixup = 0.3

  config.optimizer.name = "sgd"
  config.optimizer.learning_rate = 0.1
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 3.0
  config.loss.label_smoothing = 0.1
  config.ema_decay = 0.999
  config.dtype = "bfloat16"
  config.batch_size = 128
  config.num_epochs = 90
  config.eval_every_epochs = 3
  config.best_metric = "validation_accuracy"
  if variant == "half":
    config.model.stem = "small_stride2"
    config.model.width = 0.5
    config.augment.mixup = 0.0  # Fewer parameters need less regularization.
    config.augment.random_erasing = 0.25
    config.dtype = "float32"
    config.eval_every_epochs = 5
  elif variant == "tuned":
    config.init_from = "ferplus-resnet18"
    config.freeze.patterns = "conv1,layer1"
    config.optimizer.learning_rate = 0.02
    config.schedule.warmup_epochs = 0.5
    config.augment.mixup = 0.2
    config.augment.random_erasing = 0.3
    config.num_epochs = 20
    config.eval_every_epochs = 2
  return config
