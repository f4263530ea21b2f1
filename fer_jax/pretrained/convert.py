r"""Converts a file of reference ImageNet weights.

python -m fer_jax.pretrained.convert FILE --model=resnet50 --out=weights \
  [--channels=1] [--num_classes=7]

FILE is of torchvision or timm (.pth, .pt, .safetensors), Hugging Face
(.safetensors) or Keras (.h5, .weights.h5); its format and its naming scheme
are told by what is in it. `fer_jax.pretrained.load(OUT)` reads the result.
"""

from collections.abc import Sequence

from absl import flags, logging

from fer_jax import errors
from fer_jax.pretrained import conversion, converted_weights

_MODEL = flags.DEFINE_string(
  "model", None, "The model the weights are of.", required=True
)
_OUT = flags.DEFINE_string(
  "out", None, "A new folder for the result.", required=True
)
_CHANNELS = flags.DEFINE_integer(
  "channels", 3, "Of the images: 3, or 1, for which the stem is summed."
)
_NUM_CLASSES = flags.DEFINE_integer(
  "num_classes", None, "Drops the classifier if it has another number."
)


def main(argv: Sequence[str]) -> None:
  """Converts the file that the arguments name."""
  if len(argv) != 2:
    raise errors.UserError(
      f"give one file of weights, not {len(argv) - 1}:"
      " python -m fer_jax.pretrained.convert FILE --model=NAME --out=FOLDER"
    )
  logging.set_verbosity(logging.WARNING)
  converted_weights.check_new(_OUT.value)
  variables, info = conversion.convert_file(
    argv[1],
    _MODEL.value,
    channels=_CHANNELS.value,
    num_classes=_NUM_CLASSES.value,
  )
  folder = converted_weights.save(_OUT.value, variables, info)
  classes = info["num_classes"]
  print(f"{info['file']}: {info['scheme']} weights, a {info['format']} file")
  print(f"sha256 {info['sha256']}")
  print(
    f"wrote {folder}: {info['model']} of {info['channels']} channels,"
    f" {'no classifier' if classes is None else f'{classes} classes'}"
  )
  for option, value in info["options"].items():
    print(f"train with --config.model.{option}={value}")
  print(f"input mean {info['mean']}, std {info['std']} on 0..1")


if __name__ == "__main__":
  errors.run(main, takes_arguments=True)
