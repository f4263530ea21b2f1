"""Conversion of a file of reference weights to the variables of a model."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from fer_jax.errors import UserError
from fer_jax.models import create, resnet
from fer_jax.ops import dispatch
from fer_jax.pretrained import files
from fer_jax.pretrained.files import Tensors, WeightFile
from fer_jax.pretrained.layouts import kind_of
from fer_jax.pretrained.schemes import SCHEMES, Scheme, schemes_of

HEAD = "fc"  # the classifier in every model


class ReferenceTensor(NamedTuple):
  """A tensor in a reference file.

  Attributes:
    name: name in the file.
    kind: see `layouts.kind_of`.
    shape: shape in the file.
  """

  name: str
  kind: str
  shape: tuple[int, ...]


def convert_file(
  path: str | Path,
  model: str,
  *,
  channels: int = 3,
  num_classes: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts reference weights to the variables of a model.

  Args:
    path: a file of torchvision, timm, Hugging Face or Keras.
    model: name of the model, see `models.list_models`.
    channels: 3, or 1 to sum the first kernel over its channels: on grayscale
      images the outputs equal those on the same images in three equal channels.
    num_classes: number of classes; if the file has another number, the
      classifier is dropped. None for the file's.

  Returns:
    `params` and `batch_stats` of float32 NumPy arrays, and their provenance:
    `model`, `file`, `sha256`, `format`, `scheme`, `channels`, `num_classes` (of
    the classifier; None without one), `options` (of the model, for outputs
    equal to the reference's; those of Keras's MobileNet v1 are equal at sizes
    that are multiples of 32, see docs/finetune.md), `mean` and `std` (of the
    input in 0..1, one number per channel).

  Raises:
    UserError: the file cannot be read or does not fit the model; the message
      lists all tensors that do not fit.
  """
  schemes = schemes_of(model)
  if channels not in (1, 3):
    raise UserError(f"channels={channels} must be 1 or 3")
  if num_classes is not None and num_classes < 1:
    raise UserError(f"num_classes={num_classes} must be at least 1")
  file = files.read(path)
  scheme = _recognize(file, model, schemes, path)
  variables = _convert(file.tensors, model, scheme, path)
  head = variables["params"].get(HEAD)
  classes = None if head is None else len(head["bias"])
  if num_classes not in (None, classes):
    variables["params"].pop(HEAD, None)
    classes = None
  if channels == 1:
    kernel = variables["params"]["conv1"]["kernel"]
    variables["params"]["conv1"]["kernel"] = kernel.sum(axis=2, keepdims=True)
  mean, std = (
    s if channels == 3 else (round(float(np.mean(s)), 6),)
    for s in scheme.statistics
  )
  info = {
    "model": model,
    "file": file.name,
    "sha256": file.sha256,
    "format": file.format,
    "scheme": scheme.name,
    "channels": channels,
    "num_classes": classes,
    "options": dict(scheme.options),
    "mean": list(mean),
    "std": list(std),
  }
  return variables, info


def reference_tensors(
  model: str, scheme: Scheme, num_classes: int
) -> dict[str, ReferenceTensor]:
  """Returns the tensors of a model in the files of a naming scheme.

  Args:
    model: name of the model.
    scheme: a naming scheme of the model.
    num_classes: number of classes of the classifier.

  Returns:
    The tensors by their path in our tree, such as
    `params/layer1_0/conv1/kernel`.
  """
  layers = scheme.layers()
  result = {}
  shapes = _shapes(model)
  norms = {path[:-1] for path in shapes if path[-1] == "scale"}
  for path, shape in shapes.items():
    if path[1] == HEAD:
      shape = (*shape[:-1], num_classes)
    part = "offset" if path[-1] == "bias" and path[:-1] in norms else path[-1]
    kind = kind_of(part, shape)
    result["/".join(path)] = ReferenceTensor(
      name=scheme.layout.name(layers["/".join(path[1:-1])], part),
      kind=kind,
      shape=scheme.layout.their_shape(shape, kind),
    )
  return result


@functools.cache
def _shapes(model: str) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Returns the shapes of a model of color images and one class, by path."""
  module = create(model, num_classes=1)
  x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  with dispatch.use_xla():  # the fastest to trace
    variables = jax.eval_shape(
      functools.partial(module.init, train=False), jax.random.key(0), x
    )
  return {path: leaf.shape for path, leaf in flatten_dict(variables).items()}


def _recognize(
  file: WeightFile, model: str, schemes: Sequence[Scheme], path: str | Path
) -> Scheme:
  """Returns the naming scheme that most tensors of the file belong to."""

  def known(scheme: Scheme) -> int:
    return len(_names(model, scheme) & set(file.tensors))

  best = max(schemes, key=known)
  if known(best):
    return best
  if file.format == "keras" and model in resnet.DEPTHS:
    raise UserError(
      f"{path} has Keras weights of a ResNet v1, whose stride is in a block's"
      " first 1x1 convolution instead of its 3x3: the outputs would differ; use"
      " weights of torchvision, timm or Hugging Face"
    )
  raise UserError(
    f"{path} is not a {model} of {', '.join(s.name for s in schemes)}: its"
    f" first tensors are {', '.join(list(file.tensors)[:3]) or 'none'}"
  )


def _names(model: str, scheme: Scheme) -> set[str]:
  return {t.name for t in reference_tensors(model, scheme, 1).values()}


def _convert(
  tensors: Tensors, model: str, scheme: Scheme, path: str | Path
) -> dict[str, Any]:
  """Returns our variables, without the classifier if the file has none."""
  layout = scheme.layout
  head = scheme.layers()[HEAD]
  bias = tensors.get(layout.name(head, "bias"))
  expected = reference_tensors(model, scheme, 1 if bias is None else bias.size)
  of_head = {p for p in expected if p.startswith(f"params/{HEAD}/")}
  if not any(expected[p].name in tensors for p in of_head):
    expected = {p: v for p, v in expected.items() if p not in of_head}
  tensors = {
    name: _dense_kernel(array) if name.startswith(head) else array
    for name, array in tensors.items()
    if not name.endswith(layout.ignored)
  }
  _check(tensors, expected, model, scheme, path)
  return unflatten_dict(
    {
      ours: np.ascontiguousarray(
        layout.to_ours(tensors[theirs.name], theirs.kind)
      )
      for ours, theirs in expected.items()
    },
    sep="/",
  )


def _dense_kernel(array: np.ndarray) -> np.ndarray:
  """Returns the kernel of a classifier that may be a 1x1 convolution."""
  return array[0, 0] if array.shape[:-2] == (1, 1) else array


def _check(
  tensors: Tensors,
  expected: dict[str, ReferenceTensor],
  model: str,
  scheme: Scheme,
  path: str | Path,
) -> None:
  """Raises one error that lists all tensors that do not fit."""
  shapes = {tensor.name: tensor.shape for tensor in expected.values()}
  missing = sorted(set(shapes) - set(tensors))
  unmatched = sorted(set(tensors) - set(shapes))
  both = sorted(set(tensors) & set(shapes))
  wrong_shape = [
    f"{name} {list(tensors[name].shape)} instead of {list(shapes[name])}"
    for name in both
    if tensors[name].shape != shapes[name]
  ]
  not_finite = [n for n in both if not np.all(np.isfinite(tensors[n]))]
  problems = [
    f"{len(names)} {what}: {'; '.join(names)}"
    for what, names in (
      ("missing", missing),
      ("unexpected", unmatched),
      ("of the wrong shape", wrong_shape),
      ("not finite", not_finite),
    )
    if names
  ]
  if problems:
    raise UserError(
      f"{path} does not fit {model} ({scheme.name})"
      f"{_hint(tensors, model, scheme)}: {'. '.join(problems)}"
    )


def _hint(tensors: Tensors, model: str, scheme: Scheme) -> str:
  """Returns a hint if the names are those of another model."""
  for other in SCHEMES:
    for theirs in schemes_of(other):
      if other != model and theirs.name == scheme.name:
        if _names(other, theirs) == set(tensors):
          return f", but its names are those of {other}"
  return ""
