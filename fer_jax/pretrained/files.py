"""Reading of files of reference weights: safetensors, torch and Keras.

The format is detected from the file's first bytes, not from its name. No pickle
is unpickled here; torch's format is read by torch's restricted unpickler.
"""

import dataclasses
import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (registers bfloat16 with NumPy)
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from fer_jax.errors import UserError
from fer_jax.object_stores.urls import require_local
from fer_jax.pretrained import keras_files

Tensors = dict[str, Float[np.ndarray, "..."]]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
# The pickled magic number at the start of files of torch before 1.6.
_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# How safetensors' dtypes begin that NumPy cannot read: F8_E4M3, F4, ...
_NOT_IN_NUMPY = ("F8", "F6", "F4")
# Keys under which training scripts store the weights among other values.
_NESTED = ("state_dict", "model_state_dict", "model")


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """The content of a file of weights.

  Attributes:
    name: name of the file, without its folder.
    sha256: SHA-256 of the file, in hexadecimal.
    format: "safetensors", "torch" or "keras".
    tensors: float32 arrays by name.
  """

  name: str
  sha256: str
  format: str
  tensors: Tensors


def read(path: str | Path) -> WeightFile:
  """Reads a file of weights.

  Args:
    path: a .safetensors, .pth, .pt, .h5 or .weights.h5 file.

  Raises:
    UserError: the file cannot be read, is damaged, has an unknown format or
      dtype or is a pickle, or the library that reads its format is not
      installed.
  """
  path = require_local(path, "file", is_input=True)
  try:
    with path.open("rb") as f:
      head = f.read(64)
      f.seek(0)
      sha256 = hashlib.file_digest(f, "sha256").hexdigest()
  except OSError as e:
    raise UserError(
      f"cannot read {path}: {e.strerror or e}; choose a file of weights"
    ) from e
  format = _format(path, head)
  readers = {
    "safetensors": _read_safetensors,
    "torch": _read_torch,
    "keras": keras_files.read,
  }
  tensors = {}
  for name, array in readers[format](path).items():
    if np.iscomplexobj(array):
      raise _unsupported(path, name, array.dtype)
    tensors[name] = np.asarray(array, np.float32)
  return WeightFile(path.name, sha256, format, tensors)


def damaged(path: Path, reason: object) -> UserError:
  """Returns the error for a damaged file."""
  words = " ".join(str(reason).split()).split(". ")[0]
  return UserError(f"{path} is damaged ({words}): download it again")


def _format(path: Path, head: bytes) -> str:
  # First, since the 8 bytes before it can have any value (the header's length).
  if head[8:9] == b"{":
    return "safetensors"
  if head.startswith(_HDF5):
    return "keras"
  if head.startswith(_ZIP):
    return _zip_format(path)
  if head.startswith(_PICKLE):
    if _OLD_TORCH in head:
      return "torch"
    raise UserError(
      f"{path} is a pickle, which could run arbitrary code when read: use"
      " weights in .safetensors"
    )
  raise _unknown(path)


def _zip_format(path: Path) -> str:
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except zipfile.BadZipFile as e:
    raise damaged(path, e) from e
  if any(name.endswith("/data.pkl") for name in names):
    return "torch"
  if "model.weights.h5" in names:
    raise UserError(
      f"{path} is a complete Keras model: unzip it and use its model.weights.h5"
    )
  raise _unknown(path)


def _unknown(path: Path) -> UserError:
  return UserError(
    f"{path} is not a file of weights: use a .safetensors, .pth (torch) or .h5"
    " (Keras) file"
  )


def _unsupported(path: Path, name: str, dtype: object) -> UserError:
  return UserError(
    f"{path} has {name} of the unsupported dtype {dtype}: convert it to float32"
  )


def _read_safetensors(path: Path) -> Mapping[str, Any]:
  try:
    with safetensors.safe_open(path, "np") as file:
      for name in file.keys():
        dtype = file.get_slice(name).get_dtype()
        if dtype.startswith(_NOT_IN_NUMPY):
          raise _unsupported(path, name, dtype)
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as e:
    raise damaged(path, e) from e


def _read_torch(path: Path) -> Mapping[str, Any]:
  try:
    import torch
  except ImportError as e:
    raise UserError(
      f"reading {path} needs torch: pip install 'torch>=2.6', or use the same"
      " weights in .safetensors"
    ) from e
  # Before 2.6 the restricted unpickler could run code, CVE-2025-32434.
  version = tuple(int(n) for n in torch.__version__.split(".")[:2])
  if version < (2, 6):
    raise UserError(
      f"torch {torch.__version__} cannot read {path} safely: pip install"
      " 'torch>=2.6', or use the same weights in .safetensors"
    )
  try:
    content = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as e:
    raise UserError(
      f"{path} contains more than tensors and could run arbitrary code when"
      " read: use its state_dict or .safetensors"
    ) from e
  except Exception as e:  # torch raises many types for damaged files
    raise damaged(path, e) from e
  for key in _NESTED:
    if isinstance(content, dict) and isinstance(content.get(key), dict):
      content = content[key]
  if not isinstance(content, dict) or not all(
    isinstance(name, str)
    and isinstance(value, torch.Tensor)
    and value.layout == torch.strided
    for name, value in content.items()
  ):
    raise UserError(
      f"{path} has no state_dict: use a file of named, dense tensors"
    )
  prefix = "module."  # of models trained on several devices
  wrapped = all(name.startswith(prefix) for name in content)
  return {
    name.removeprefix(prefix) if wrapped else name: (
      tensor if tensor.is_complex() else tensor.float()
    ).numpy(force=True)  # also of parameters, which have gradients
    for name, tensor in content.items()
  }
