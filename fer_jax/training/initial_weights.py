"""Initial weights of a run: `config.init_from`.

They come from another run, a released model, a folder of converted weights, or
are published ones. Layers that depend on the classes are reinitialized if the
classes differ. A first kernel for three channels is summed to make one for one
channel, and divided the other way: on gray images the outputs do not change.
Every other parameter must match.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.models.layer_groups import variable_shapes
from fer_jax.object_stores import local_copies, urls
from fer_jax.pretrained import converted_weights, download, released
from fer_jax.training.checkpoints import read_variables
from fer_jax.training.train_state import TrainState, Tree

Shape = tuple[int, ...]
# Options of models that do not change what trained parameters compute.
_WITHOUT_EFFECT = ("dropout", "stochastic_depth", "zero_init_residual")


@dataclasses.dataclass(frozen=True)
class SourceWeights:
  """Weights as they were read.

  Attributes:
    source: as the user names it.
    arrays: by path: `params/conv1/kernel`, `batch_stats/bn1/mean`.
    model: name of the model they belong to.
    options: that model's options, as far as they are known.
    input: `mean` and `std` of the images' normalization; () for 0 to 1.
    classes: class names, or their number; None without a classifier.
  """

  source: str
  arrays: Mapping[str, np.ndarray]
  model: str
  options: Mapping[str, Any]
  input: tuple[tuple[float, ...], ...]
  classes: tuple[str, ...] | int | None


@dataclasses.dataclass(frozen=True)
class InitialWeights:
  """Weights that fit a model.

  Attributes:
    arrays: by path; missing ones are randomly initialized.
    description: one line that says which those are.
  """

  arrays: Mapping[str, np.ndarray]
  description: str

  def put(self, state: TrainState) -> TrainState:
    """Returns the state with these weights."""

    def filled(tree: Any, collection: str) -> Any:
      flat = flatten_dict(tree, sep="/")
      for path, random in flat.items():
        array = self.arrays.get(f"{collection}/{path}", random)
        flat[path] = jnp.asarray(array, random.dtype)
      return unflatten_dict(flat, sep="/")

    def all_filled(variables: Any) -> dict[str, Any]:
      return {name: filled(tree, name) for name, tree in variables.items()}

    variables = all_filled(state.variables())
    return state.replace(**variables, ema=all_filled(state.ema))


def read(source: str) -> SourceWeights:
  """Reads weights.

  Args:
    source: a workdir or its URL, a released model's name, a folder of converted
      weights, or "timm:NAME" or "torchvision:NAME".

  Raises:
    UserError: there are no weights, or they cannot be read or downloaded.
  """
  if download.is_published(source):
    return _converted(source, download.folder_of(source))
  if released.is_released(source):
    return _trained(source, *released.read_released(source))
  place = urls.to_path(source)
  with local_copies.checkpoint(place, "best") as folder:
    if (folder / "checkpoints").is_dir():
      return _trained(source, *read_variables(folder))
  if (place / converted_weights.SOURCE).is_file():
    return _converted(source, place)
  raise UserError(
    f"init_from={source} must be the workdir of a training run, a released"
    f" model ({', '.join(released.list_released())}), a folder of converted"
    " weights, timm:NAME or torchvision:NAME"
  )


def fit(
  weights: SourceWeights,
  model: nn.Module,
  config: ConfigDict,
  class_names: Sequence[str],
) -> InitialWeights:
  """Adapts weights to a model.

  Args:
    weights: as they were read.
    model: the model to be trained.
    config: the run's configuration.
    class_names: the classes of the run's dataset.

  Raises:
    UserError: parameters do not match; the message lists all of them.
  """
  size, channels = config.input.image_size, config.input.channels
  shapes = variable_shapes(model, (size, size, channels))
  more_classes = model.clone(num_classes=len(class_names) + 1)
  head = _changed(shapes, variable_shapes(more_classes, (size, size, channels)))
  stem = _changed(shapes, variable_shapes(model, (size, size, 4 - channels)))
  arrays, notes = dict(weights.arrays), []
  if reason := _why_reinitialized(weights.classes, class_names):
    arrays = {path: a for path, a in arrays.items() if path not in head}
    shapes = {path: s for path, s in shapes.items() if path not in head}
    layers = sorted({path.split("/", 1)[1].rpartition("/")[0] for path in head})
    notes.append(f"{', '.join(layers)} is reinitialized ({reason})")
  for path in stem & set(arrays):
    if arrays[path].ndim == 4 and {arrays[path].shape[2], channels} == {1, 3}:
      name = path.split("/", 1)[1]
      notes.append(
        f"{name} converted from {4 - channels} to {channels} input channels"
      )
      arrays[path] = _with_channels(arrays[path], channels)
  _check(weights, arrays, shapes, model, config.model.name)
  notes += _differences(weights, model, config)
  line = f"initial weights: {weights.source} ({weights.model})"
  return InitialWeights(arrays, "; ".join([line, *notes]))


def _trained(
  source: str, variables: Tree, info: Mapping[str, Any]
) -> SourceWeights:
  config = configs.from_json(info["config"])
  options = {k: v for k, v in config.model.items() if v is not None}
  given = config.input
  unit = given.normalization == "unit"
  return SourceWeights(
    source=source,
    arrays=_flat(variables),
    model=options.pop("name"),
    options=options,
    input=() if unit else (tuple(given.mean), tuple(given.std)),
    classes=tuple(info["class_names"]),
  )


def _converted(source: str, folder: pathlib.Path) -> SourceWeights:
  variables, info = converted_weights.load(folder)
  return SourceWeights(
    source=source,
    arrays=_flat(variables),
    model=info["model"],
    options=info["options"],
    input=(tuple(info["mean"]), tuple(info["std"])),
    classes=info["num_classes"],
  )


def _flat(variables: Any) -> dict[str, np.ndarray]:
  flat = flatten_dict(variables, sep="/")
  return {path: np.asarray(leaf) for path, leaf in flat.items()}


def _changed(one: dict[str, Shape], other: dict[str, Shape]) -> set[str]:
  return {path for path, shape in one.items() if other[path] != shape}


def _why_reinitialized(
  theirs: tuple[str, ...] | int | None, ours: Sequence[str]
) -> str:
  """Returns why the classifier cannot be used; "" if it can."""
  if theirs is None:
    return "the source has none"
  number = theirs if isinstance(theirs, int) else len(theirs)
  if number != len(ours):
    return f"{len(ours)} classes, not {number}"
  if isinstance(theirs, tuple) and theirs != tuple(ours):
    return f"the source's classes are {', '.join(theirs)}"
  return ""


def _with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """Converts a first kernel to gray images in `channels` equal channels."""
  gray = kernel.sum(axis=2, keepdims=True)
  return np.repeat(gray / channels, channels, axis=2)


def _check(
  weights: SourceWeights,
  arrays: Mapping[str, np.ndarray],
  shapes: Mapping[str, Shape],
  model: nn.Module,
  name: str,
) -> None:
  """Raises one error for all parameters that do not match."""
  misshapen = [
    f"{path} {list(arrays[path].shape)}, not {list(shapes[path])}"
    for path in sorted(arrays.keys() & shapes.keys())
    if arrays[path].shape != shapes[path]
  ]
  problems = [
    f"{len(names)} {what}: {'; '.join(names)}"
    for what, names in (
      ("missing", sorted(shapes.keys() - arrays.keys())),
      ("unexpected", sorted(arrays.keys() - shapes.keys())),
      ("with another shape", misshapen),
    )
    if names
  ]
  if problems:
    options = [f"model.name={weights.model}"] if weights.model != name else []
    options += [f"model.{o}={v}" for o, v in _changed_options(weights, model)]
    theirs = f": {' '.join(options)}" if options else ""
    raise UserError(
      f"init_from={weights.source}: the source's {weights.model} does not match"
      f" this run's {name}: use the model and options that the weights were"
      f" trained with{theirs}. {'. '.join(problems)}"
    )


def _changed_options(
  weights: SourceWeights, model: nn.Module
) -> list[tuple[str, Any]]:
  """Returns the options of the source's network that the model differs in."""
  options = registry.options_of(weights.model).items()
  defaults = {name: option.default for name, option in options}
  return [
    (option, value)
    for option, value in (defaults | dict(weights.options)).items()
    if getattr(model, option, defaults.get(option)) != value
    and option not in _WITHOUT_EFFECT
  ]


def _differences(
  weights: SourceWeights, model: nn.Module, config: ConfigDict
) -> list[str]:
  """Returns what matches but was different when the weights were trained."""
  notes = [
    f"trained with model.{option}={value}"
    for option, value in _changed_options(weights, model)
  ]
  given = config.input
  ours: tuple[tuple[float, ...], ...] = ()
  if given.normalization == "mean_std":
    ours = (tuple(given.mean), tuple(given.std))
  if weights.input != ours:
    notes.append(
      f"trained on {_described(weights.input)}, here {_described(ours)}"
    )
  return notes


def _described(statistics: tuple[tuple[float, ...], ...]) -> str:
  if not statistics:
    return "0 to 1"
  mean, std = statistics
  return f"mean {list(mean)} and std {list(std)}"
