r"""Converts a file of reference ImageNet weights.

fer-jax convert FILE --model=resnet50 --out=weights [--channels=1] \
  [--num_classes=7]

FILE is of torchvision or timm (.pth, .pt, .safetensors), Hugging Face
(.safetensors) or Keras (.h5, .weights.h5); its content tells which.
`fer-jax train --config.init_from=OUT` starts from the result. Formats other
than .safetensors need the optional extra `convert`.
"""

from collections.abc import Sequence

from absl import flags, logging

from fer_jax.cli import app
from fer_jax.errors import UserError


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
    "model", None, "Model that the weights are of.", required=True
  )
  flags.DEFINE_string("out", None, "New folder for the result.", required=True)
  flags.DEFINE_integer("channels", 3, "Channels of the images: 3, or 1.")
  flags.DEFINE_integer(
    "num_classes", None, "Drops a classifier of another number of classes."
  )


def main(argv: Sequence[str]) -> None:
  """Converts the file that the arguments name."""
  given = flags.FLAGS
  if len(argv) != 2:
    raise UserError(
      f"give one file of weights, not {len(argv) - 1}:"
      " fer-jax convert FILE --model=NAME --out=FOLDER"
    )
  from fer_jax.pretrained import conversion, converted_weights

  logging.set_verbosity(logging.WARNING)
  converted_weights.check_new(given.out)
  variables, info = conversion.convert_file(
    argv[1],
    given.model,
    channels=given.channels,
    num_classes=given.num_classes,
  )
  folder = converted_weights.save(given.out, variables, info)
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


COMMAND = app.Command(
  "convert", __doc__, define_flags, main, takes_arguments=True
)

if __name__ == "__main__":
  COMMAND.run()
