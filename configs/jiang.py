"""The recipe of Jiang et al., for any model: jiang_*.py share it.

python -m fer_jax.train --config=configs/jiang.py:ri

"A Bi-directional Residual Network for Image Expression Recognition": FER2013's
images with the ten classes of FER+ (eight expressions, unknown and no face),
or CK+ with seven; Adam, batches of 64, rotated and cropped images.

The paper's transfer learning does not say from which weights it starts. Any of
the networks starts from another run by --config.init_from=WORKDIR, such as one
on FER+ for CK+; the baselines also from ImageNet, whose images are normalized:
--config.init_from=timm:resnet50 (timm:mobilenet_v2)
--config.input.normalization=mean_std --config.input.mean="(0.449,)"
--config.input.std="(0.226,)", and for timm:mobilenet mean and std "(0.5,)"; the
first kernel is summed over three channels.
"""

from ml_collections import ConfigDict

from fer_jax.configs import default
from fer_jax.errors import choose

DATASETS = ("ferplus", "ckplus")


def get_config(
  model: str = "bi_resnet_ri", dataset: str = "ferplus"
) -> ConfigDict:
  choose("dataset of Jiang's recipe", dataset, DATASETS)
  config = default.get_config()
  config.model.name = model

  config.dataset.name = dataset
  if dataset == "ferplus":
    config.dataset.target = "majority"
  config.dataset.num_classes = 10 if dataset == "ferplus" else 7
  config.input.normalization = "unit"  # Paper: not stated
  # Paper: faces are aligned first; FER+'s crops are used as they are.
  config.augment.rotation = 10.0  # degrees. Paper: not stated
  config.augment.crop_padding = 4  # pixels. Paper: "cropping"

  config.optimizer.name = "adam"
  config.optimizer.learning_rate = 1e-4  # Paper: prints 0.001 as well
  config.optimizer.b1 = 0.5
  config.schedule.name = "fixed"
  # Paper: sigmoid outputs under categorical cross-entropy, as Keras takes it;
  # that is --config.loss.output=sigmoid.
  config.loss.output = "softmax"
  # Paper: 3.5 reads as if the baselines had the bi-directional networks' dense
  # layers, too; ours have one, as published. The numbers of blocks are in
  # fer_jax/models/bi_resnet.py. Paper: not stated.
  config.batch_size = 64
  # Paper: not stated for FER+.
  config.num_epochs = 100 if dataset == "ferplus" else 1200
  config.best_metric = "validation_accuracy"
  return config
