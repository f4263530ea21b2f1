"""The command `fer-jax`: runs the command that its first argument names."""

import importlib
import sys

import fer_jax
from fer_jax.cli import app
from fer_jax.errors import did_you_mean

# Group -> command -> module and summary.
COMMANDS = {
  "Train": {
    "train": ("fer_jax.train", "Train a model, or resume a run"),
    "study": ("fer_jax.study", "Compare recipes over several seeds"),
    "sweep": ("fer_jax.sweep", "Search hyperparameters"),
    "reproduce": ("fer_jax.reproduce", "The papers' tables, trained again"),
    "cross-validate": ("fer_jax.cross_validate", "Train on every fold"),
  },
  "Use a model": {
    "evaluate": ("fer_jax.evaluate", "Scores with intervals, and a report"),
    "predict": ("fer_jax.predict", "Expressions in images, video, camera"),
    "explain": ("fer_jax.explain", "Grad-CAM of images"),
    "export": ("fer_jax.export", "Programs that run without fer_jax"),
    "demo": ("fer_jax.demo", "Web page to try a model"),
  },
  "Data and weights": {
    "align": ("fer_jax.align", "Crop and rotate faces of photos"),
    "audit": ("fer_jax.audit", "Duplicates and conflicting labels"),
    "contact-sheet": ("fer_jax.contact_sheet", "Images of each class"),
    "convert": ("fer_jax.convert", "Convert reference ImageNet weights"),
    "list": (
      "fer_jax.cli.list_names",
      "Models, datasets, recipes; released models",
    ),
  },
}


def main() -> None:
  """Runs `fer-jax`."""
  name, *arguments = sys.argv[1:] or ["--help"]
  if name in ("-h", "--help", "help", "--helpfull"):
    with app.checked_stdout():
      print(overview())
    return
  if name == "--version":
    with app.checked_stdout():
      print(f"fer_jax {fer_jax.__version__}")
    return
  modules = {
    command: module
    for group in COMMANDS.values()
    for command, (module, _) in group.items()
  }
  if name not in modules:
    print(
      f"error: unknown command {name!r}{did_you_mean(name, modules)}:"
      " fer-jax --help lists the commands",
      file=sys.stderr,
    )
    sys.exit(1)
  importlib.import_module(modules[name]).COMMAND.run(arguments)


def overview() -> str:
  """Returns the list of commands."""
  lines = ["usage: fer-jax COMMAND [--help] [...]"]
  for group, commands in COMMANDS.items():
    lines += ["", f"{group}:"]
    lines += [f"  {c:<16}{summary}" for c, (_, summary) in commands.items()]
  return "\n".join(lines)


if __name__ == "__main__":
  main()
