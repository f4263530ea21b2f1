"""What `peers` compares: libraries, their variants, and that they are equal."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import reporting

from fer_jax import errors

LIBRARIES = ("fer_jax", "pytorch", "flax")  # The first one writes the weights.
DTYPES = ("float32", "bfloat16")
MODES = ("eager", "compiled", "reduce-overhead", "graph")
CUDA_MODES = ("reduce-overhead", "graph")
LAYOUTS = ("contiguous", "channels_last")
# Relative tolerances. Rounding switches single ReLUs on or off, which is
# visible in the gradient of a deep network.
LOSS_TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 2e-2

# A library, a variant of it, and a dtype.
Key = tuple[str, str, str]


def chosen(
  libraries: Sequence[str],
  dtypes: Sequence[str],
  torch_dtypes: Sequence[str],
  modes: Sequence[str],
  layouts: Sequence[str],
) -> list[Key]:
  """Returns the variants that the flags of these names choose.

  Raises:
    UserError: a name is unknown, or a mode needs a GPU and there is none.
  """
  libraries = reporting.chosen("libraries", libraries, LIBRARIES)
  dtypes = reporting.chosen("dtypes", dtypes, DTYPES)
  keys: list[Key] = [("fer_jax", "", dtype) for dtype in dtypes]
  if "pytorch" in libraries:
    keys += [
      ("pytorch", f"{mode} {layout}", dtype)
      for mode, layout, dtype in itertools.product(
        torch_modes(modes),
        reporting.chosen("layouts", layouts, LAYOUTS),
        reporting.chosen("torch_dtypes", torch_dtypes, DTYPES),
      )
    ]
  if "flax" in libraries:
    keys += [("flax", "", dtype) for dtype in dtypes]
  return keys


def torch_modes(names: Sequence[str]) -> list[str]:
  """Returns PyTorch's modes by name; without names, all that can run here.

  Raises:
    UserError: a name is unknown, or needs a GPU and there is none.
  """
  has_gpu = has_nvidia_gpu()
  if not names:
    return [mode for mode in MODES if has_gpu or mode not in CUDA_MODES]
  chosen = reporting.chosen("modes", names, MODES)
  for mode in chosen:
    if mode in CUDA_MODES and not has_gpu:
      raise errors.UserError(
        f"modes={mode} needs an NVIDIA GPU, which is not available: use"
        " modes=eager,compiled"
      )
  return chosen


def has_nvidia_gpu() -> bool:
  """Returns whether there is an NVIDIA GPU; imports no library that uses it."""
  devices = ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/dxg")  # dxg: WSL
  return any(Path(device).exists() for device in devices)


def check_equal(model: str, about: Mapping[Key, Mapping[str, Any]]) -> None:
  """Checks that all variants compute the same as the first one, and where.

  Raises:
    UserError: platforms or sizes differ, or losses or gradients by more than
      rounding.
  """
  first, ours = next(iter(about.items()))
  for key, theirs in about.items():
    if theirs["platform"] != ours["platform"]:
      raise errors.UserError(
        f"{model}: {key[0]} runs on {theirs['platform']}, but {first[0]} on"
        f" {ours['platform']}: install both for the same platform, or leave"
        f" {key[0]} out of libraries"
      )
    if (
      theirs["num_parameters"] != ours["num_parameters"]
      or not math.isclose(theirs["loss"], ours["loss"], rel_tol=LOSS_TOLERANCE)
      or not math.isclose(
        theirs["gradient"], ours["gradient"], rel_tol=GRADIENT_TOLERANCE
      )
    ):
      raise errors.UserError(
        f"{model}: {key[0]} has {_describe(theirs)}, but {first[0]} has"
        f" {_describe(ours)}: the models differ"
      )


def _describe(about: Mapping[str, Any]) -> str:
  return (
    f"{about['num_parameters']:,} parameters, loss {about['loss']:.6f} and a"
    f" gradient of norm {about['gradient']:.5f}"
  )
