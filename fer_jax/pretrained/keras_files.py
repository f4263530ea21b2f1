"""Reading of the two layouts of Keras' HDF5 files.

* `model.save("x.h5")`, and all files of Keras 2: one group per layer, which
  lists its `weight_names`, such as `conv1/kernel:0`; in `model_weights` for
  complete models.
* `model.save_weights("x.weights.h5")` of Keras 3: `layers/conv2d_1/vars/0`,
  with the layer's name as an attribute; the tensors of a layer are numbered.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError

# Tensors of a layer in order, by their number.
_PARTS = {
  1: ("kernel",),
  2: ("kernel", "bias"),
  4: ("gamma", "beta", "moving_mean", "moving_variance"),
}
# Names in Keras 2: of depthwise kernels, and of MobileNetV2's classifier.
_RENAMED = {"depthwise_kernel": "kernel", "Logits": "predictions"}


def read(path: Path) -> dict[str, np.ndarray]:
  """Reads a Keras file.

  Args:
    path: an HDF5 file.

  Returns:
    Arrays by `layer/tensor`, such as `conv1_bn/gamma`.

  Raises:
    UserError: h5py is not installed, or the file is damaged or not of Keras.
  """
  try:
    import h5py
  except ImportError as e:
    raise UserError(f"reading {path} needs h5py: pip install h5py") from e
  try:
    with h5py.File(path, "r") as f:
      return dict(_numbered_tensors(f) if "layers" in f else _named_tensors(f))
  # h5py raises many types for damaged and for other files.
  except (AttributeError, LookupError, OSError, RuntimeError, ValueError) as e:
    raise UserError(
      f"{path} is damaged or not a file of Keras weights: download it again"
    ) from e


def _named_tensors(f: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the tensors of a file with named tensors."""
  if "model_weights" in f:
    f = f["model_weights"]
  for layer in f.attrs["layer_names"]:
    layer = _text(layer)
    for name in f[layer].attrs["weight_names"]:
      part = _text(name).split("/")[-1].removesuffix(":0")
      ours = [_RENAMED.get(word, word) for word in (layer, part)]
      yield "/".join(ours), f[layer][_text(name)][()]


def _numbered_tensors(f: Any) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the tensors of a file with numbered tensors."""
  for key, group in f["layers"].items():
    variables = group.get("vars", {})
    layer = _text(variables.attrs.get("name", key)) if variables else key
    parts = _PARTS.get(len(variables), tuple(sorted(variables)))
    for i, part in zip(sorted(variables), parts, strict=True):
      yield f"{layer}/{part}", variables[i][()]


def _text(name: Any) -> str:
  return name.decode() if isinstance(name, bytes) else str(name)
