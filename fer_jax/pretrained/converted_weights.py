"""The folder of converted weights: tensors and their provenance."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from fer_jax.errors import UserError
from fer_jax.files import sha256
from fer_jax.object_stores.urls import require_local

WEIGHTS = "weights.safetensors"  # names are paths: params/conv1/kernel
SOURCE = "source.json"  # the provenance that `convert_file` returns, and:
_DIGEST = "weights_sha256"


def save(
  folder: str | Path, variables: Mapping[str, Any], info: Mapping[str, Any]
) -> Path:
  """Writes converted weights, atomically.

  Args:
    folder: a folder that does not exist yet.
    variables: `params` and `batch_stats`.
    info: provenance, written as JSON.

  Returns:
    The folder.

  Raises:
    UserError: the folder exists, or cannot be written.
  """
  folder = check_new(folder)
  tensors = {
    path: np.ascontiguousarray(leaf)
    for path, leaf in flatten_dict(variables, sep="/").items()
  }
  staging = None
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name))
    safetensors.numpy.save_file(tensors, staging / WEIGHTS)
    source = {**info, _DIGEST: sha256(staging / WEIGHTS)}
    (staging / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
    staging.chmod(0o755)  # mkdtemp makes folders private
    staging.rename(folder)
  except (OSError, safetensors.SafetensorError) as e:
    if staging:
      shutil.rmtree(staging, ignore_errors=True)
    raise UserError(
      f"cannot write {folder}: {e}; free disk space or choose another folder"
    ) from e
  return folder


def check_new(folder: str | Path) -> Path:
  """Returns the folder if it does not exist.

  Raises:
    UserError: the folder exists.
  """
  folder = require_local(folder, "out")
  if folder.exists():
    raise UserError(f"{folder} exists already: choose a new folder")
  return folder


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads converted weights.

  Args:
    folder: a folder that `save` or `fer-jax convert` wrote.

  Returns:
    `params` and `batch_stats` of float32 arrays, and the provenance.

  Raises:
    UserError: the folder has no converted weights, or they are damaged.
  """
  folder = require_local(folder, "init_from", is_input=True)
  try:
    info = dict(json.loads((folder / SOURCE).read_text()))
    # Folders of development versions before 0.1.0 have no digest.
    if info.pop(_DIGEST, digest := sha256(folder / WEIGHTS)) != digest:
      raise ValueError(f"{WEIGHTS} is damaged (wrong checksum)")
    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
  except (FileNotFoundError, NotADirectoryError) as e:
    raise UserError(
      f"{folder} has no converted weights: create them with"
      f" fer-jax convert FILE --model=NAME --out={folder}"
    ) from e
  except (OSError, TypeError, ValueError, safetensors.SafetensorError) as e:
    raise UserError(
      f"cannot read the weights of {folder}: {e}; remove that folder, and"
      " convert or download them again"
    ) from e
  return unflatten_dict(tensors, sep="/"), info
