"""Models that this package comes with, by name.

Each is a safetensors file in `weights/`: the parameters, convolution and dense
kernels as float16 and all else as float32, and as metadata the configuration,
the class names, the preprocessing, the recipe and the scores. Its SHA-256 is in
`weights/SHA256SUMS` and checked whenever it is loaded.
`fer_jax.pretrained.release` writes them.

>>> "ferplus-resnet18" in list_released()
True
"""

import hashlib
import json
import numbers
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from fer_jax.errors import UserError, choose, did_you_mean, require
from fer_jax.files import atomic_write
from fer_jax.inference.trained_model import CHECKPOINTS, TrainedModel
from fer_jax.object_stores import urls

WEIGHTS = Path(__file__).parent / "weights"
CHECKSUMS = "SHA256SUMS"  # lines as sha256sum writes and checks them
PREFERRED = ("ferplus-small", "ferplus-resnet18")
_BATCH_SIZE = 64


def list_released() -> list[str]:
  """Returns the names of the released models, sorted."""
  return sorted(_checksums(WEIGHTS))


def default_name() -> str:
  """Returns the model that is used where none is named."""
  names = list_released()
  return next(name for name in (*PREFERRED, *names) if name in names)


def load_model(
  source: str | os.PathLike[str] | None = None,
  checkpoint: str = "best",
  batch_size: int = 0,
) -> TrainedModel:
  """Loads a released model or what a run trained.

  Args:
    source: a name that `list_released` returns, or the workdir of a run, which
      goes first where both exist; None is the default released model.
    checkpoint: of a run, "best" or "latest"; a released model has only "best".
    batch_size: images per compiled call; 0 is the model's own.

  Raises:
    UserError: there is no such model, it cannot be read, or `batch_size` is no
      integer or negative.
  """
  choose("checkpoint", checkpoint, CHECKPOINTS)
  source = default_name() if source is None else source
  if not isinstance(source, str | os.PathLike):
    raise UserError(
      f"source={source!r:.60} must be the name of a model, or the folder of a"
      " run"
    )
  require(
    isinstance(batch_size, numbers.Integral),
    "batch_size",
    repr(batch_size),
    "be an integer",
  )
  urls.require_named(source)
  if is_released(source):
    if checkpoint != "best":
      raise UserError(
        f"checkpoint={checkpoint}: the released model {source} has only best"
      )
    return load(str(source), batch_size)
  try:
    return TrainedModel.load(source, checkpoint, batch_size)
  except UserError as e:
    if urls.is_url(source) or _is_workdir(source):
      raise
    names = list_released()
    hint = did_you_mean(str(source), names)
    released = f"a released model{hint}: {', '.join(names)}"
    raise UserError(f"{e}, or {released}") from e


def split_names(text: str) -> list[str]:
  """Returns the models of a comma-separated list.

  Args:
    text: names as `load_model` takes them, or the workdir of one run, whose
      path may have commas.
  """
  if "," in text and _is_workdir(text):
    return [text]
  return [name for part in text.split(",") if (name := part.strip())]


def is_released(source: str | os.PathLike[str]) -> bool:
  """Returns whether this names a released model, and not a run's workdir."""
  return str(source) in list_released() and not _is_workdir(source)


def _is_workdir(source: str | os.PathLike[str]) -> bool:
  return (urls.to_path(source) / "checkpoints").is_dir()


def load(
  name: str, batch_size: int = 0, folder: Path = WEIGHTS
) -> TrainedModel:
  """Loads a released model.

  Args:
    name: a name that `list_released` returns.
    batch_size: images per compiled call, over all local devices; 0 is 64.
    folder: where the files lie.

  Returns:
    The same as loading the workdir of a run does.

  Raises:
    UserError: the name is unknown, the file is missing or damaged, or the batch
      size is negative.
  """
  variables, info = read_released(name, folder)
  return TrainedModel.from_variables(
    variables, info, Path(name), "best", batch_size or _BATCH_SIZE
  )


def read_released(
  name: str, folder: Path = WEIGHTS
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns what `read` does, of a released model.

  Raises:
    UserError: the name is unknown, or the file is missing or damaged.
  """
  checksums = _checksums(folder)
  choose("released model", name, checksums)
  return read(_path(folder, name), checksums[name])


def read(path: Path, sha256: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a file of weights.

  Args:
    path: the file.
    sha256: what its contents must hash to, in hexadecimal.

  Returns:
    `params` and `batch_stats` as float32, and the metadata.

  Raises:
    UserError: the file is missing or damaged.
  """
  try:
    data = path.read_bytes()
  except OSError as e:
    raise UserError(f"cannot read {path}: {e}; install fer_jax again") from e
  if hashlib.sha256(data).hexdigest() != sha256:
    raise UserError(
      f"{path} is damaged: its SHA-256 is not that of {CHECKSUMS}; install"
      " fer_jax again"
    )
  size = int.from_bytes(data[:8], "little")
  info = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["info"])
  tensors = {
    path: tensor.astype(np.float32)
    for path, tensor in safetensors.numpy.load(data).items()
  }
  return unflatten_dict(tensors, sep="/"), info


def write(
  name: str, variables: Any, info: dict[str, Any], folder: Path = WEIGHTS
) -> Path:
  """Writes a file of weights and its checksum.

  Args:
    name: of the model.
    variables: `params` and `batch_stats`.
    info: the metadata, fit for JSON.
    folder: where to.

  Returns:
    The file.

  Raises:
    UserError: it cannot be written.
  """
  tensors = {
    path: np.ascontiguousarray(stored(np.asarray(leaf)))
    for path, leaf in flatten_dict(variables, sep="/").items()
  }
  data = safetensors.numpy.save(tensors, {"info": json.dumps(info)})
  path = _path(folder, name)
  checksums = _checksums(folder) | {name: hashlib.sha256(data).hexdigest()}
  lines = [
    f"{checksums[n]}  {_path(folder, n).name}" for n in sorted(checksums)
  ]
  try:
    with atomic_write(path, parents=True) as temporary:
      temporary.write_bytes(data)
    with atomic_write(folder / CHECKSUMS) as temporary:
      temporary.write_text("\n".join(lines) + "\n")
  except OSError as e:
    raise UserError(f"cannot write {path}: {e}") from e
  return path


def stored(tensor: np.ndarray) -> np.ndarray:
  """Returns a parameter as the file holds it.

  Kernels take two bytes a number. float16 rounds them eight times less than
  bfloat16, and none comes near its largest value; the scales and statistics of
  norms may, and are few.
  """
  return tensor.astype(np.float16 if tensor.ndim >= 2 else np.float32)


def _path(folder: Path, name: str) -> Path:
  return folder / f"{name}.safetensors"


def _checksums(folder: Path) -> dict[str, str]:
  """Returns the SHA-256 of each model's file, by the model's name."""
  path = folder / CHECKSUMS
  if not path.exists():
    return {}
  pairs = (line.split() for line in path.read_text().splitlines() if line)
  return {Path(file).stem: digest for digest, file in pairs}
