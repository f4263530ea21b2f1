"""The weights that a new run starts from: `config.init_from`.

They are another run's, a folder of converted weights, or published ones. What
depends on the classes starts afresh where those are others; a first kernel for
three channels is summed for one, and shared out the other way: on grey images
the outputs stay. All else must fit to the last parameter.
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
from fer_jax.models.layer_groups import variable_shapes
from fer_jax.pretrained import converted_weights, download
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.train_state import TrainState

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Weights:
  """Weights as they were found.

  Attributes:
    source: as the user names it.
    arrays: by path, `params/conv1/kernel`, `batch_stats/bn1/mean`.
    model: the name of theirs.
    options: that model's, where they are stated.
    input: `mean` and `std` that images were normalised by; () for 0 to 1.
    classes: names of the head's, or their number; None without a head.
  """

  source: str
  arrays: Mapping[str, np.ndarray]
  model: str
  options: Mapping[str, Any]
  input: tuple[tuple[float, ...], ...]
  classes: tuple[str, ...] | int | None


@dataclasses.dataclass(frozen=True)
class Start:
  """What a model starts from.

  Attributes:
    arrays: by path; what is missing starts afresh.
    description: one line, which says what does.
  """

  arrays: Mapping[str, np.ndarray]
  description: str

  def put(self, state: TrainState) -> TrainState:
    """The state with these weights in it."""

    def filled(tree: Any, collection: str) -> Any:
      flat = flatten_dict(tree, sep="/")
      for path, fresh in flat.items():
        array = self.arrays.get(f"{collection}/{path}", fresh)
        flat[path] = jnp.asarray(array, fresh.dtype)
      return unflatten_dict(flat, sep="/")

    params = filled(state.params, "params")
    return state.replace(
      params=params,
      batch_stats=filled(state.batch_stats, "batch_stats"),
      ema=filled(state.ema, "params") if state.ema else {},
    )


def read(source: str) -> Weights:
  """Reads weights.

  Args:
    source: a workdir, a folder of converted weights, or "timm:NAME" or
      "torchvision:NAME".

  Raises:
    UserError: there are none, or they cannot be read or downloaded.
  """
  if download.is_published(source):
    return _converted(source, download.folder_of(source))
  folder = pathlib.Path(source).expanduser()
  if (folder / "checkpoints").is_dir():
    return _trained(source, folder)
  if (folder / converted_weights.SOURCE).is_file():
    return _converted(source, folder)
  raise UserError(
    f"--config.init_from={source} is no workdir that python -m fer_jax.train"
    " has written, no folder of python -m fer_jax.pretrained.convert, and none"
    " of timm:NAME and torchvision:NAME"
  )


def fit(
  weights: Weights,
  model: nn.Module,
  config: ConfigDict,
  class_names: Sequence[str],
) -> Start:
  """Makes weights those of a model.

  Args:
    weights: as found.
    model: to be trained.
    config: of the run.
    class_names: of the run's data set.

  Raises:
    UserError: some do not fit; the message lists them all.
  """
  size, channels = config.input.image_size, config.input.channels
  shapes = variable_shapes(model, (size, size, channels))
  more_classes = model.clone(num_classes=len(class_names) + 1)
  head = _changed(shapes, variable_shapes(more_classes, (size, size, channels)))
  stem = _changed(shapes, variable_shapes(model, (size, size, 4 - channels)))
  arrays, notes = dict(weights.arrays), []
  if fresh := _why_fresh(weights.classes, class_names):
    arrays = {path: a for path, a in arrays.items() if path not in head}
    shapes = {path: s for path, s in shapes.items() if path not in head}
    layers = sorted({path.split("/", 1)[1].rpartition("/")[0] for path in head})
    notes.append(f"{', '.join(layers)} starts afresh ({fresh})")
  for path in stem & set(arrays):
    if arrays[path].ndim == 4 and {arrays[path].shape[2], channels} == {1, 3}:
      name = path.split("/", 1)[1]
      notes.append(f"{name} of {4 - channels} channels made one of {channels}")
      arrays[path] = _with_channels(arrays[path], channels)
  _check(weights, arrays, shapes, config.model.name)
  notes += _differences(weights, model, config)
  line = f"starts from {weights.source} ({weights.model})"
  return Start(arrays, "; ".join([line, *notes]))


def _trained(source: str, workdir: pathlib.Path) -> Weights:
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    variables, info = checkpoints.restore_variables("best")
  finally:
    checkpoints.close()
  config = configs.from_json(info["config"])
  options = {k: v for k, v in config.model.items() if v is not None}
  given = config.input
  unit = given.normalization == "unit"
  return Weights(
    source=source,
    arrays=_flat(variables),
    model=options.pop("name"),
    options=options,
    input=() if unit else (tuple(given.mean), tuple(given.std)),
    classes=tuple(info["class_names"]),
  )


def _converted(source: str, folder: pathlib.Path) -> Weights:
  variables, info = converted_weights.load(folder)
  return Weights(
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


def _why_fresh(
  theirs: tuple[str, ...] | int | None, ours: Sequence[str]
) -> str:
  """Why the head cannot be taken; empty where it can."""
  if theirs is None:
    return "there is none"
  number = theirs if isinstance(theirs, int) else len(theirs)
  if number != len(ours):
    return f"{len(ours)} classes, not {number}"
  if isinstance(theirs, tuple) and theirs != tuple(ours):
    return f"its classes are {', '.join(theirs)}"
  return ""


def _with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """A first kernel for grey images in another number of equal channels."""
  grey = kernel.sum(axis=2, keepdims=True)
  return np.repeat(grey / channels, channels, axis=2)


def _check(
  weights: Weights,
  arrays: Mapping[str, np.ndarray],
  shapes: Mapping[str, Shape],
  model: str,
) -> None:
  """Raises one error for all parameters that do not fit."""
  misshapen = [
    f"{path} {list(arrays[path].shape)}, not {list(shapes[path])}"
    for path in sorted(arrays.keys() & shapes.keys())
    if arrays[path].shape != shapes[path]
  ]
  problems = [
    f"{len(names)} {what}: {'; '.join(names)}"
    for what, names in (
      ("missing", sorted(shapes.keys() - arrays.keys())),
      ("unmatched", sorted(arrays.keys() - shapes.keys())),
      ("of another shape", misshapen),
    )
    if names
  ]
  if problems:
    raise UserError(
      f"--config.init_from={weights.source}: its {weights.model} does not fit"
      f" this run's {model}: give the model and its options as they were. "
      f"{'. '.join(problems)}"
    )


def _differences(
  weights: Weights, model: nn.Module, config: ConfigDict
) -> list[str]:
  """What fits but was another when the weights were trained."""
  notes = [
    f"trained with model.{option}={value}"
    for option, value in weights.options.items()
    if getattr(model, option) != value and option != "dropout"
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
