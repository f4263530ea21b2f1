"""A trained model as files that run without this package.

As ONNX: see `onnx_export`. As StableHLO, made by `jax.export`: stored images
in, uint8 `[b h w c]` for any b, probabilities out, float32 `[b k]`; weights and
preprocessing are inside. The program for CPU has this package's convolutions,
the one for accelerators XLA's own.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from fer_jax import __version__
from fer_jax.errors import choose
from fer_jax.inference import onnx_export
from fer_jax.inference.any_batch_size import any_batch_size
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.ops import cpu_library, dispatch
from fer_jax.output_folder import OutputFolder

FORMATS = ("stablehlo", "onnx")
# File -> the platforms it runs on.
PROGRAMS: dict[str, tuple[str, ...]] = {
  "model_cpu.stablehlo": ("cpu",),
  "model_gpu_tpu.stablehlo": ("cuda", "rocm", "tpu"),
}
README = """\
# {title}

    import json
    import numpy as np
    from jax import export
    program = export.deserialize(open("model_cpu.stablehlo", "rb").read())
    class_names = json.load(open("model.json"))["class_names"]
    # uint8 [b, {height}, {width}, {channels}] -> float32 [b, {classes}]
    images = np.zeros((8, {height}, {width}, {channels}), np.uint8)  # faces
    probabilities = program.call(images)

`model_gpu_tpu.stablehlo` is the same for GPU and TPU. Needs jax and
flatbuffers (`pip install jax flatbuffers`).
"""


def export(
  trained: TrainedModel, folder: Path, format: str = "stablehlo"
) -> list[Path]:
  """Writes a model in one of `FORMATS`.

  Args:
    trained: the model.
    folder: the output folder; created if it does not exist.
    format: "stablehlo" (two programs, `model.json` and `README.md`) or "onnx"
      (`model.onnx`).

  Returns:
    The files written.

  Raises:
    UserError: the format is unknown, the model cannot be converted, or a file
      cannot be written or was not made by this package.
  """
  choose("format", format, FORMATS)
  contents = {
    "stablehlo": stablehlo_files,
    "onnx": lambda trained: {onnx_export.FILE: onnx_export.content(trained)},
  }[format](trained)
  output = OutputFolder(folder, kind="model")
  for name, content in contents.items():
    with output.write(name) as temporary:
      temporary.write_bytes(content)
  return [folder / name for name in contents]


def stablehlo_files(trained: TrainedModel) -> dict[str, bytes]:
  """Returns the programs and what describes them, by file name.

  Args:
    trained: the model.
  """
  contents = {
    name: bytes(program(trained, platforms).serialize())
    for name, platforms in PROGRAMS.items()
  }
  contents["model.json"] = json.dumps(describe(trained), indent=2).encode()
  height, width, channels = trained.image_shape
  contents["README.md"] = README.format(
    title=f"{trained.config.model.name} on {trained.config.dataset.name}",
    height=height,
    width=width,
    channels=channels,
    classes=len(trained.class_names),
  ).encode()
  return contents


def program(
  trained: TrainedModel, platforms: tuple[str, ...]
) -> jax.export.Exported:
  """Returns the model as one function of any number of images.

  Args:
    trained: the model. The program for CPU computes in float32, the other one
      in the type that the model was trained in.
    platforms: as jax.export names them.

  Raises:
    UserError: the model takes only some numbers of images.
  """
  cpu = platforms == ("cpu",)
  dtype = "float32" if cpu else trained.config.dtype
  model = trained.model.clone(dtype=jnp.dtype(dtype))
  trained = dataclasses.replace(trained, model=model)
  # Constants of the program, as it is traced without arguments for them.
  variables = jax.tree.map(np.asarray, trained.variables)

  def probabilities(images: Array) -> Array:
    return jax.nn.softmax(trained.logits(images, variables))

  function = jax.export.export(jax.jit(probabilities), platforms=platforms)
  native = _cpu_operations() if cpu else dispatch.use_xla()
  with native, any_batch_size() as batch:
    shape = (batch, *trained.image_shape)
    return function(jax.ShapeDtypeStruct(shape, jnp.uint8))


@contextlib.contextmanager
def _cpu_operations() -> Iterator[None]:
  """Traces for CPU on any machine, without the compiled C++ kernels."""
  with dispatch.tracing_for("cpu"), cpu_library.disabled():
    yield


def describe(trained: TrainedModel) -> dict[str, Any]:
  """Returns the inputs and outputs of the programs, as JSON values."""
  return {
    "fer_jax": __version__,
    "model": trained.config.model.name,
    "dataset": trained.config.dataset.name,
    "class_names": list(trained.class_names),
    "input": {"dtype": "uint8", "shape": ["b", *trained.image_shape]},
    "output": {
      "dtype": "float32",
      "shape": ["b", len(trained.class_names)],
      "meaning": "probabilities",
    },
    "programs": {name: list(names) for name, names in PROGRAMS.items()},
  }
