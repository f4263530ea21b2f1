"""Lewis's recipe, for any ResNet: lewis_resnet*.py share it.

python -m fer_jax.train --config=configs/lewis.py:resnet152

Christopher Lewis, "Fine-tuning an Image Classification Model to Perform Facial
Expression Recognition": ImageNet weights, fine-tuned on FER2013's gray images
in three equal channels of 224 pixels, with AdaFactor, random resized crops and
flips. The weights, `init_from`, are torchvision's first ones, downloaded once;
other ways:

* --config.init_from=weights, a folder of `fer-jax convert`
* --config.init_from=runs/resnet50-synthetic_faces, a run of ours
* --config.init_from= (nothing), from scratch, which is not the paper's

The paper's future work: --config.schedule.warmup_epochs=1 and
--config.schedule.name=cosine; ResNet-152; another expression set first, by
init_from. Its check that a model can learn: --config.overfit=64. For laptops
48 pixels, as the images are: configs/lewis.py:resnet18,small
"""

from ml_collections import ConfigDict

from fer_jax.configs import default
from fer_jax.errors import choose

SIZES = {"full": 224, "small": 48}  # pixels


def get_config(choice: str = "resnet18") -> ConfigDict:
  model, _, size = choice.partition(",")
  choose("size of Lewis's recipe", size or "full", SIZES)
  config = default.get_config()
  config.model.name = model
  config.model.stem = "imagenet"
  config.init_from = f"timm:{model}"

  config.dataset.name = "fer2013"
  config.input.image_size = SIZES[size or "full"]
  config.input.channels = 3
  config.input.normalization = "mean_std"
  config.input.mean = (0.485, 0.456, 0.406)  # ImageNet's
  config.input.std = (0.229, 0.224, 0.225)
  # Paper: smallest fraction of the area not stated; torchvision's default
  config.augment.resized_crop = 0.08
  config.augment.flip = True

  config.optimizer.name = "adafactor"  # absolute rate, unscaled parameters
  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.0
  config.schedule.name = "linear"
  config.schedule.end_factor = 0.0
  # Paper: 128 for ResNet-18, 64 for ResNet-50
  config.batch_size = 128 if model == "resnet18" else 64
  config.num_epochs = 30
  config.best_metric = "validation_accuracy"
  return config
