"""Configurations: checked once, compared, and stored as JSON."""

import json
import math
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config_fields, config_values, models, renamed_fields
from fer_jax.config_fields import flatten
from fer_jax.configs import default
from fer_jax.data import normalization
from fer_jax.data.transforms import augmentation
from fer_jax.errors import UserError, choose, require
from fer_jax.models import registry as model_registry

DTYPES = ("float32", "bfloat16")
CUDA_GRAPHS = ("auto", "off", "convolutions")

# Fields that may change between a run and its resumption: they say how it is
# run, not what it computes.
RUNTIME_FIELDS = (
  "checkpoint",
  "compilation_cache",
  "cuda_graphs",
  "deterministic",
  "dataset.manual_dir",
  "dataset.data_dir",
  "dataset.verify",
  "eval_batch_size",
  "data_loader",
  "log_every_steps",
  "max_minutes",
  "parallel",
  "profile",
  "steps_per_call",
)
# Fields that may also change, to train longer or in smaller batches: what was
# trained stays, what follows is computed with the new values.
EXTENDABLE_FIELDS = ("batch_size", "early_stopping", "num_epochs")
_AT_LEAST = {
  "batch_size": 1,
  "checkpoint.every_steps": 0,
  "checkpoint.keep": 1,
  "eval_batch_size": 1,
  "eval_every_epochs": 1,
  "log_every_steps": 1,
  "max_minutes": 0,
  "num_epochs": 1,
  "overfit": 0,
  "seed": 0,
  "steps_per_call": 0,
}


def require_config(config: Any) -> None:
  """Checks that this is a configuration at all.

  Raises:
    UserError: it is something else, such as a recipe's name.
  """
  is_config = isinstance(config, ConfigDict)
  if not is_config or {*default.get_config()} - {*config}:
    raise UserError(
      f"config={config!r:.60} must be what fer_jax.get_config returns"
    )


def check(config: ConfigDict) -> None:
  """Checks what needs no data: names, options and ranges.

  The loss, the optimizer, the schedule and early stopping check their own
  sections when they are created, which is before anything compiles too.

  Raises:
    UserError: for the first field that is wrong.
  """
  from fer_jax.data import pipeline  # Slow to import, and only needed here.

  config_fields.check_fields(config)
  models.create(num_classes=2, **config.model)
  choose("data_loader", config.data_loader, pipeline.DATA_LOADERS)
  choose("dtype", config.dtype, DTYPES)
  choose("cuda_graphs", config.cuda_graphs, CUDA_GRAPHS)
  # Unset, the channels are the dataset's, which `with_dataset_input` knows.
  channels = max(1, len(config.input.mean))
  normalization.check(**_input_with(config, 48, channels))
  augmentation.check(augmentation.Augmentation(**config.augment))
  fields = flatten(config)
  for field, least in _AT_LEAST.items():
    value = fields[field]
    require(value >= least, field, value, f"be at least {least}")
  ok = config.seed < 2**32
  require(ok, "seed", config.seed, "be below 4294967296 (32 bits)")
  ok = 0 <= config.ema_decay < 1
  require(ok, "ema_decay", config.ema_decay, "be at least 0 and less than 1")


def with_dataset_input(
  config: ConfigDict, image_shape: tuple[int, int, int]
) -> ConfigDict:
  """Returns the configuration with the model's input that the data imply.

  Args:
    config: fields of `input` that are set stay.
    image_shape: height, width and channels of the dataset's images.

  Raises:
    UserError: an option of the dataset has no effect, since `input` undoes it,
      or there are means for another number of channels.
  """
  height, _, channels = image_shape
  if config.dataset.get("color") and config.input.channels == 1:
    raise UserError(
      "dataset.color=True has no effect, since input.channels=1 makes the"
      " images gray: unset one of them"
    )
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.input.update(_input_with(config, height, channels))
  normalization.check(**config.input)
  return config.lock()


def _input_with(
  config: ConfigDict, image_size: int, channels: int
) -> dict[str, Any]:
  """Returns the `input` section, unset fields filled in."""
  section = config.input.to_dict()
  defaults = {"image_size": image_size, "channels": channels}
  unset = {k: v for k, v in defaults.items() if section[k] is None}
  return {**section, **unset}


def to_json(config: ConfigDict) -> dict[str, Any]:
  """Returns the configuration as nested dictionaries that JSON can hold."""
  text = json.dumps(config.to_dict(), default=config_values.builtin)
  return json.loads(text)


def from_json(fields: dict[str, Any]) -> ConfigDict:
  """Returns the locked configuration that `to_json` was given.

  Args:
    fields: those that did not exist then have their defaults, and old names
      are accepted with a warning.

  Raises:
    ValueError: a value is not of its field's type.
  """
  upgraded = renamed_fields.upgrade(flatten(fields), "config.json")
  config = default.get_config()
  with config.unlocked():
    for field, value in upgraded.items():
      value = _as_tuple(value)
      *sections, _ = field.split(".")
      if sections and sections[0] not in config:
        config[sections[0]] = ConfigDict()
      try:
        config_fields.set_field(config, field, value)
      except TypeError as e:
        raise ValueError(f"{field}={value!r}: {e}") from e
  return lock(config)


def _as_tuple(value: Any) -> Any:
  return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def lock(config: ConfigDict) -> ConfigDict:
  """Locks the fields; the options of the model and the dataset stay open."""
  config.lock()
  for section in config_fields.OPEN_SECTIONS:
    config[section].unlock()
  return config


def upgrade(config: ConfigDict, source: str) -> ConfigDict:
  """Renames fields that a recipe sets by their old names, in place.

  Args:
    config: what the recipe returned.
    source: the recipe, for the warning.
  """
  old = flatten(config)
  new = renamed_fields.upgrade(old, source)
  with config.unlocked():
    for field in old.keys() - new.keys():
      config_fields.set_field(config, field, None)
    for field, value in new.items():
      if field not in old or old[field] != value:
        config_fields.set_field(config, field, value)
  return config


def differences(
  old: ConfigDict, new: ConfigDict, allowed: tuple[str, ...] = ()
) -> list[str]:
  """Returns the changes of what a run computes, as "field: old -> new".

  Args:
    old: the configuration the run was started with.
    new: the one it would be resumed with.
    allowed: fields or sections that may differ, besides RUNTIME_FIELDS.
  """
  before, after = flatten(to_json(old)), flatten(to_json(new))
  for fields in (before, after):  # An alias is the same model.
    fields["model.name"] = model_registry.canonical_name(fields["model.name"])
  changed = []
  for field in sorted(before.keys() | after.keys()):
    ignored = any(
      field == name or field.startswith(name + ".")
      for name in RUNTIME_FIELDS + allowed
    )
    a, b = before.get(field), after.get(field)
    if (a is None) != (b is None):  # Unset, an option has its default.
      default = config_fields.option_default(new, field)
      a, b = (default if value is None else value for value in (a, b))
    # Unset, it is compared when it has been filled in from the dataset.
    unset = field in config_fields.OPTIONAL_FIELDS and None in (a, b)
    if not (ignored or unset or _same(a, b)):
      changed.append(f"{field}: {a!r} -> {b!r}")
  return changed


def _same(a: Any, b: Any) -> bool:
  numbers = isinstance(a, int | float) and isinstance(b, int | float)
  return math.isclose(a, b, rel_tol=1e-12) if numbers else bool(a == b)
