"""The folder of converted weights: tensors and where they are from."""

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

WEIGHTS = "weights.safetensors"  # names are paths: params/conv1/kernel
SOURCE = "source.json"  # what `convert_file` gives as info


def save(
  folder: str | Path, variables: Mapping[str, Any], info: Mapping[str, Any]
) -> Path:
  """Writes converted weights, all or nothing.

  Args:
    folder: a new one.
    variables: `params` and `batch_stats`.
    info: what JSON has.

  Returns:
    The folder.

  Raises:
    UserError: it is there already, or cannot be written.
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
    (staging / SOURCE).write_text(json.dumps(info, indent=2) + "\n")
    staging.chmod(0o755)  # mkdtemp's own is for its owner alone
    staging.rename(folder)
  except (OSError, safetensors.SafetensorError) as e:
    if staging:
      shutil.rmtree(staging, ignore_errors=True)
    raise UserError(
      f"cannot write {folder}: {e}; make room or choose another folder"
    ) from e
  return folder


def check_new(folder: str | Path) -> Path:
  """Returns the folder if it is not there yet.

  Raises:
    UserError: it is.
  """
  folder = Path(folder).expanduser()
  if folder.exists():
    raise UserError(f"{folder} is there already: give a new folder")
  return folder


def load(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads converted weights.

  Args:
    folder: what `save` or the convert command wrote.

  Returns:
    `params` and `batch_stats` of float32 arrays, and the info.

  Raises:
    UserError: the folder is none of these, or damaged.
  """
  folder = Path(folder).expanduser()
  try:
    info = json.loads((folder / SOURCE).read_text())
    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
  except (FileNotFoundError, NotADirectoryError) as e:
    raise UserError(
      f"{folder} holds no converted weights: make them with"
      f" python -m fer_jax.pretrained.convert FILE --model=NAME --out={folder}"
    ) from e
  except (OSError, ValueError, safetensors.SafetensorError) as e:
    raise UserError(
      f"cannot read the weights of {folder}: {e}; convert them again"
    ) from e
  return unflatten_dict(tensors, sep="/"), info
