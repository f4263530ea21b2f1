"""Configurations: checked once, before anything is read or compiled."""

import functools
import json
import math
import operator
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from fer_jax import models, renamed_fields
from fer_jax.configs import default
from fer_jax.data import normalization, pipeline
from fer_jax.data.datasets import registry
from fer_jax.data.transforms import augmentation
from fer_jax.errors import choose, require
from fer_jax.models import registry as model_registry
from fer_jax.training import losses

DTYPES = ("float32", "bfloat16")

# Fields that may change between a run and its resumption: they say how it is
# run, not what it computes.
RUNTIME_FIELDS = (
  "checkpoint",
  "compilation_cache",
  "dataset.manual_dir",
  "dataset.data_dir",
  "eval_batch_size",
  "data_loader",
  "log_every_steps",
  "parallel",
  "profile",
  "steps_per_call",
)


def check(config: ConfigDict) -> None:
  """Checks what needs no data: names and ranges.

  The optimizer, the schedule and the stopping rule check their own sections
  when they are made, which is before anything compiles too.

  Raises:
    UserError: for the first field that is wrong, named as the user types it.
  """
  models.create(num_classes=2, **config.model)
  choose("data set", config.dataset.name, registry.available())
  choose("--config.data_loader", config.data_loader, pipeline.DATA_LOADERS)
  choose("--config.dtype", config.dtype, DTYPES)
  normalization.check(**config.input)
  augmentation.check(augmentation.Augmentation(**config.augment))
  losses.check(config.loss)
  at_least = {
    "batch_size": 1,
    "checkpoint.every_steps": 0,
    "checkpoint.keep": 1,
    "eval_batch_size": 1,
    "eval_every_epochs": 1,
    "log_every_steps": 1,
    "num_epochs": 1,
    "overfit": 0,
    "seed": 0,
    "steps_per_call": 0,
  }
  fields = flatten(config)
  for field, least in at_least.items():
    value = fields[field]
    require(value >= least, field, value, f"be at least {least}")
  ok = 0 <= config.ema_decay < 1
  require(ok, "ema_decay", config.ema_decay, "be at least 0 and less than 1")


def to_json(config: ConfigDict) -> dict[str, Any]:
  """The configuration as nested dictionaries that survive JSON unchanged."""
  return json.loads(json.dumps(config.to_dict()))


def from_json(fields: dict[str, Any]) -> ConfigDict:
  """What `to_json` made, as a locked configuration.

  Fields that did not exist then have their defaults, and old names of fields
  are accepted.
  """

  def with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
      return {key: with_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
      return tuple(with_tuples(item) for item in value)
    return value

  defaults = to_json(default.get_config())
  upgraded = renamed_fields.upgrade(flatten(fields), "the configuration")
  return ConfigDict(with_tuples(_merged(defaults, _nested(upgraded)))).lock()


def upgrade(config: ConfigDict, source: str) -> ConfigDict:
  """Renames fields that a recipe sets by old names, in place.

  Args:
    config: what the recipe returned.
    source: the recipe, for the warning.
  """
  old = flatten(config)
  new = renamed_fields.upgrade(old, source)
  with config.unlocked():
    for field in old.keys() - new.keys():
      *sections, name = field.split(".")
      del functools.reduce(operator.getitem, sections, config)[name]
    changed = {f: v for f, v in new.items() if f not in old or old[f] != v}
    config.update_from_flattened_dict(changed)
  return config


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  nested: dict[str, Any] = {}
  for field, value in fields.items():
    *sections, name = field.split(".")
    section = nested
    for key in sections:
      section = section.setdefault(key, {})
    section[name] = value
  return nested


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
  """The fields of both; of one that both have, that above."""
  merged = dict(below)
  for key, value in above.items():
    old = below.get(key)
    nested = isinstance(value, dict) and isinstance(old, dict)
    merged[key] = _merged(old, value) if nested else value  # type: ignore[arg-type]
  return merged


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
  """Every field by its dotted name.

  >>> flatten({"model": {"name": "resnet18"}, "seed": 0})
  {'model.name': 'resnet18', 'seed': 0}
  """
  return dict(_walk(config, prefix))


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
  for key, value in node.items():
    if isinstance(value, dict | ConfigDict):
      yield from _walk(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
  """What a run cannot be resumed with: changed fields, as "field: old -> new".

  Args:
    old: the configuration the run was started with.
    new: the one it would be resumed with.
  """
  before, after = flatten(to_json(old)), flatten(to_json(new))
  for fields in (before, after):  # An alias is the same model.
    fields["model.name"] = model_registry.canonical_name(fields["model.name"])
  changed = []
  for field in sorted(before.keys() | after.keys()):
    runtime = any(
      field == name or field.startswith(name + ".") for name in RUNTIME_FIELDS
    )
    a, b = before.get(field), after.get(field)
    if not runtime and not _same(a, b):
      changed.append(f"{field}: {a!r} -> {b!r}")
  return changed


def _same(a: Any, b: Any) -> bool:
  numbers = isinstance(a, int | float) and isinstance(b, int | float)
  return math.isclose(a, b, rel_tol=1e-12) if numbers else bool(a == b)
