"""A trained model as an ONNX file, which runs without JAX.

The file takes stored images, uint8 [n h w c] for any n, and returns
probabilities, float32 [n k]: weights and preprocessing are inside. It is
converted from the JAX program of the model: `trace` turns each primitive into
ONNX operations, `simplify` folds them, and `write` makes the file.
"""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import __version__
from fer_jax.inference.onnx import trace, write
from fer_jax.inference.onnx.graph import BATCH
from fer_jax.inference.onnx.simplify import simplify
from fer_jax.inference.trained_model import TrainedModel

if TYPE_CHECKING:
  import onnx

FILE = "model.onnx"


def content(trained: TrainedModel) -> bytes:
  """Returns the content of the ONNX file of a model.

  Args:
    trained: the model; the file computes in float32, whatever the model was
      trained in.

  Raises:
    UserError: as `convert` does.
  """
  return convert(trained).SerializeToString()


def convert(trained: TrainedModel) -> "onnx.ModelProto":
  """Returns a model as ONNX, checked by `onnx.checker`.

  Args:
    trained: the model.

  Raises:
    UserError: `onnx` is not installed, or the model has an operation that
      cannot be converted.
  """
  onnx = write.onnx_package()
  network = dataclasses.replace(
    trained,
    model=trained.model.clone(dtype=jnp.float32),
    variables=jax.tree.map(np.asarray, trained.variables),
  )
  graph = trace.trace(network.logits, trained.image_shape)
  graph.scope = ""
  shape = (BATCH, len(trained.class_names))
  graph.output = graph.add("Softmax", [graph.output], shape, axis=-1)
  simplify(graph)
  proto = write.to_model(
    graph, trained.config.model.name, "probabilities", shape
  )
  for key, value in describe(trained).items():
    text = value if isinstance(value, str) else json.dumps(value)
    proto.metadata_props.add(key=key, value=text)
  onnx.checker.check_model(proto, full_check=True)
  return proto


def describe(trained: TrainedModel) -> dict[str, Any]:
  """Returns the metadata that the file carries; a list is written as JSON."""
  height, width, channels = trained.image_shape
  return {
    "fer_jax": __version__,
    "model": trained.config.model.name,
    "dataset": trained.config.dataset.name,
    "class_names": list(trained.class_names),
    "input": f"uint8 [n, {height}, {width}, {channels}]",
    "output": f"float32 [n, {len(trained.class_names)}]: probabilities",
  }
