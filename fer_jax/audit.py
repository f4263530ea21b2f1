r"""Reports duplicates, conflicting labels and class counts of a dataset.

fer-jax audit --dataset=fer2013 [--manual_dir=DIR] [--data_dir=DIR] \
  [--option=NAME=VALUE ...] [--output=audit]

Writes balance.csv (examples per class), duplicates.csv (examples with the same
image, byte for byte), conflicts.csv and conflicts.png (duplicates whose labels
differ) and, for FER2013 and FER+, labels.csv (their labels compared).
"""

from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, dataset_flags


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the command's flags."""
  dataset_flags.define(values)
  flags.DEFINE_string("output", "audit", "Folder to write.", flag_values=values)


def main(argv: Sequence[str]) -> None:
  """Audits the dataset that the flags name."""
  del argv
  given = flags.FLAGS
  from fer_jax import console
  from fer_jax.data.inspect import audit, label_agreement
  from fer_jax.data.inspect.duplicates import audit as find_duplicates
  from fer_jax.errors import UserError
  from fer_jax.object_stores import urls

  folder = urls.require_local(given.output, "output")
  dataset = dataset_flags.load(given)
  found = find_duplicates(dataset)
  print(audit.describe(dataset, found))
  compared = None
  if dataset.name in ("fer2013", "ferplus"):
    try:
      compared = label_agreement.agreement(
        dataset_flags.load(given, "fer2013"),
        dataset_flags.load(given, "ferplus", num_classes=10),
      )
      print(f"\n{audit.describe_agreement(compared)}")
    except UserError as e:
      console.say(f"labels of FER2013 and FER+ are not compared: {e}")
  written = audit.write(folder, dataset, found, compared)
  print(f"\nwrote {', '.join(written)} in {folder}")


COMMAND = app.Command("audit", __doc__, define_flags, main)

if __name__ == "__main__":
  COMMAND.run()
