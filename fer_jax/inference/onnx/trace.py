"""The graph of ONNX operations that computes what a JAX function does."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from fer_jax.inference.any_batch_size import any_batch_size
from fer_jax.inference.onnx import axis_rules, elementwise_rules, layer_rules
from fer_jax.inference.onnx.graph import BATCH, Graph, Tensor
from fer_jax.inference.onnx.operands import (
  Operand,
  Rule,
  sizes,
  unsupported,
)
from fer_jax.ops import cpu_library, dispatch

RULES: dict[str, Rule] = {
  **elementwise_rules.RULES,
  **axis_rules.RULES,
  **layer_rules.RULES,
}
# Primitives that call a program, which is converted in their place, and the
# parameter that holds it.
CALLS = {
  "checkpoint": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
  "jit": "jaxpr",
}


def trace(
  function: Callable[[UInt8[Array, "n h w c"]], Float[Array, "n ..."]],
  image_shape: tuple[int, int, int],
  input_name: str = "images",
) -> Graph:
  """Converts a function of a batch of images.

  Args:
    function: traced by JAX for any number of images, with XLA's own
      convolutions in place of this package's kernels.
    image_shape: height, width and channels.
    input_name: of the graph's input.

  Returns:
    A graph whose `output` is set; constants are computed already.

  Raises:
    UserError: the function has a primitive that cannot be converted, or takes
      only some numbers of images.
  """
  native = dispatch.use_xla()
  with native, cpu_library.disabled(), any_batch_size() as batch:
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    program = jax.make_jaxpr(function)(images)
  shape = (BATCH, *image_shape)
  graph = Graph(input_name, shape)
  x = Tensor(input_name, shape, tuple(range(len(shape))))
  (result,) = _run(graph, program.jaxpr, program.consts, [x], "")
  if isinstance(result, np.ndarray):
    raise unsupported("a result that does not depend on the images")
  graph.output = graph.store(result, tuple(range(len(result.shape)))).name
  return graph


def _run(
  graph: Graph,
  program: Any,
  constants: Sequence[Any],
  operands: Sequence[Operand],
  scope: str,
) -> list[Operand]:
  """Adds a jaxpr's operations and returns its results."""
  known: dict[Any, Operand] = dict(
    zip(program.constvars, map(np.asarray, constants), strict=True)
  )
  known.update(zip(program.invars, operands, strict=True))

  def read(variable: Any) -> Operand:
    if isinstance(variable, jax.extend.core.Literal):
      aval: Any = variable.aval
      return np.asarray(variable.val, aval.dtype)
    return known[variable]

  for equation in program.eqns:
    stack = str(equation.source_info.name_stack)
    inside = "/".join(filter(None, (scope, stack)))
    results = _apply(graph, equation, list(map(read, equation.invars)), inside)
    known.update(zip(equation.outvars, results, strict=True))
  return list(map(read, program.outvars))


def _apply(
  graph: Graph, equation: Any, operands: list[Operand], scope: str
) -> Sequence[Operand]:
  """Adds one equation of a jaxpr, or computes it where all is known."""
  name, parameters = equation.primitive.name, equation.params
  if name in CALLS:
    called = parameters[CALLS[name]]
    if isinstance(called, jax.extend.core.ClosedJaxpr):
      return _run(graph, called.jaxpr, called.consts, operands, scope)
    return _run(graph, called, (), operands, scope)
  shape = sizes(equation.outvars[0].aval.shape)
  if BATCH not in shape and _are_constants(operands):
    computed = equation.primitive.bind(*operands, **parameters)
    many = equation.primitive.multiple_results
    return list(map(np.asarray, computed if many else [computed]))
  rule = RULES.get(name)
  if rule is None or (_are_constants(operands) and name != "broadcast_in_dim"):
    raise unsupported(f"the JAX primitive {name!r} of {scope or 'the model'}")
  graph.scope = scope
  result = rule(graph, *operands, **{**parameters, "shape": shape})
  return result if isinstance(result, list) else [result]


def _are_constants(operands: Sequence[Operand]) -> bool:
  return all(isinstance(x, np.ndarray) for x in operands)
