"""The flags that choose a dataset, for commands without a recipe."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from absl import flags

from fer_jax.errors import UserError, choose

if TYPE_CHECKING:  # The commands' --help is to be quick.
  from fer_jax.data.splits import Dataset


def define(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines --dataset, --manual_dir, --data_dir and --option.

  Args:
    values: where the flags go.
  """
  flags.DEFINE_string(
    "dataset",
    "fer2013",
    "Dataset; `fer-jax list datasets` shows all.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "manual_dir",
    "",
    "Where the release's files lie; the usual folder if unset.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "data_dir",
    "",
    "Where prepared data go; the usual folder if unset.",
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    "option",
    [],
    "Option of the dataset, such as classes=happy,sad.",
    flag_values=values,
  )


def load(values: flags.FlagValues, name: str = "", **options: Any) -> "Dataset":
  """Opens the dataset that the flags choose.

  Args:
    values: where the flags are.
    name: another dataset, in the same folders, without the flags' options.
    **options: of that other dataset.

  Raises:
    UserError: as `registry.load`; or an option is unknown.
  """
  from fer_jax.data.datasets import registry

  if not name:
    name = values.dataset
    options = parse_options(name, values.option)
  return registry.load(
    name,
    manual_dir=values.manual_dir,
    data_dir=values.data_dir,
    **options,
  )


def parse_options(name: str, texts: Iterable[str]) -> dict[str, Any]:
  """Reads options of a dataset, each as the type of its default.

  Args:
    name: the dataset's.
    texts: "NAME=VALUE" each.

  Raises:
    UserError: the dataset or an option is unknown, an option is given twice
      or its value has another type.
  """
  from fer_jax import config_values
  from fer_jax.data import views
  from fer_jax.data.datasets import registry

  defaults = {**registry.default_options(name), **views.OPTIONS}
  options: dict[str, Any] = {}
  for text in texts:
    option, equals, value = text.partition("=")
    if not equals:
      raise UserError(
        f"option={text} must be NAME=VALUE; names are"
        f" {', '.join(sorted(defaults))}"
      )
    choose(f"option of dataset {name}", option, defaults)
    if option in options:
      raise UserError(f"option={option}=... is given twice: leave one")
    kind = type(defaults[option])
    options[option] = config_values.parse(f"option={option}", value, kind)
  return options
