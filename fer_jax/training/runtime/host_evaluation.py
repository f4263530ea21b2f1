"""Evaluates a function on the host without compiling it as a whole.

The state before the first step is some dozen random arrays and hundreds of
constant ones. XLA compiles a program that computes them as slowly as the
training step: it generates code for each array. `evaluate` traces the same
function and computes only what its results need, operation by operation:
constants by NumPy, normal distributions by a few small programs that arrays of
similar size share, and whatever is left by one program.

The results are those of the compiled function, to the last bit on a CPU, and
the same whatever device is trained on.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

# What initializers do with numbers besides drawing them. IEEE 754 defines these
# operations exactly, so that NumPy's results are XLA's.
_BY_NUMPY: dict[str, Callable[..., Any]] = {
  "add": np.add,
  "copy": np.asarray,
  "copy_p": np.asarray,
  "div": np.divide,
  "mul": np.multiply,
  "neg": np.negative,
  "sqrt": np.sqrt,
  "sub": np.subtract,
}
# Functions of `jax.random`, as they are named where they are traced. By another
# name, each shape would be compiled separately.
_DRAWS = ("_normal", "_truncated_normal")
_STABLE = "jax_threefry_partitionable"
_MIN_SIZE, _MAX_SIZE = 4**7, 4**11  # of padded draws


def host_device() -> contextlib.AbstractContextManager[Any]:
  """Computes on the CPU what is not placed on a device."""
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX_PLATFORMS leaves it out.
    return contextlib.nullcontext()


def evaluate(traced: jax.stages.Traced, *args: Any) -> Any:
  """Calls a traced function of arrays; returns host arrays.

  Args:
    traced: as `jax.jit(f).trace(...)` returns it.
    *args: trees of arrays.

  >>> def initialize(x):
  ...   return {"ones": jax.numpy.ones(2), "x": 2 * x}
  >>> evaluate(jax.jit(initialize).trace(3.0), 3.0)
  {'ones': array([1., 1.], dtype=float32), 'x': array(6., dtype=float32)}
  """
  shapes, structure = jax.tree.flatten(traced.out_info)
  with host_device():
    evaluation = _Evaluation(traced.jaxpr, jax.tree.leaves(args))
    host = [
      np.asarray(value, of.dtype)
      for value, of in zip(evaluation.results(), shapes, strict=True)
    ]
  return jax.tree.unflatten(structure, host)


class _Draw(NamedTuple):
  """Random numbers that are drawn when it is known what they are scaled by."""

  name: str
  key: Any
  bounds: tuple[float, ...]
  result: Any  # shape and dtype

  def scaled(self, factor: Any) -> np.ndarray:
    """Draws the numbers as the start of a longer array."""
    count = math.prod(self.result.shape)
    size = count
    # With these keys, an element depends on its position only.
    if getattr(jax.config, _STABLE) and count <= _MAX_SIZE:
      size = max(_MIN_SIZE, 4 ** (((count - 1).bit_length() + 1) // 2))
    dtype = np.dtype(self.result.dtype)
    drawn = _normal(self.name, size, dtype, self.bounds, self.key, factor)
    return np.array(np.asarray(drawn)[:count].reshape(self.result.shape))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _normal(
  name: str,
  size: int,
  dtype: Any,
  bounds: tuple[float, ...],
  key: Any,
  factor: Any,
) -> jax.Array:
  if name == "_normal":
    return jax.random.normal(key, (size,), dtype) * factor
  lower, upper = bounds
  drawn = jax.random.truncated_normal(key, lower, upper, (size,), dtype)
  return drawn * factor


class _Evaluation:
  """The values of a traced function's variables."""

  def __init__(self, closed: core.ClosedJaxpr, args: list[Any]):
    self._jaxpr = closed.jaxpr
    self._values: dict[Any, Any] = dict(
      zip(closed.jaxpr.constvars, closed.consts, strict=True)
    )
    self._values |= zip(closed.jaxpr.invars, args, strict=True)
    self._left: list[Any] = []  # equations for a program

  def results(self) -> list[Any]:
    """Evaluates the equations that the results depend on."""
    for equation in _needed(self._jaxpr):
      if all(self._known(atom) for atom in equation.invars):
        self._apply(equation)
      else:
        self._left.append(equation)
    self._compile_left()
    return [self._read(atom) for atom in self._jaxpr.outvars]

  def _known(self, atom: Any) -> bool:
    return isinstance(atom, core.Literal) or atom in self._values

  def _read(self, atom: Any) -> Any:
    if isinstance(atom, core.Literal):
      return np.asarray(atom.val, jax.typeof(atom.val).dtype)
    value = self._values[atom]
    if isinstance(value, _Draw):
      value = self._values[atom] = value.scaled(np.ones((), value.result.dtype))
    return value

  def _apply(self, equation: Any) -> None:
    """Computes one operation, or leaves it for the program."""
    name, params = equation.primitive.name, equation.params
    result, atoms = equation.outvars[0], equation.invars
    if name == "mul" and (scaled := self._scaled(*atoms)) is not None:
      self._values[result] = scaled
      return
    inputs = [self._read(atom) for atom in atoms]
    on_host = all(isinstance(x, np.ndarray) for x in inputs)
    shape = result.aval.shape
    if name in ("jit", "pjit") and params["name"] in _DRAWS and shape:
      bounds = tuple(map(float, inputs[1:]))
      draw = _Draw(params["name"], inputs[0], bounds, result.aval)
      self._values[result] = draw
    elif on_host and name == "broadcast_in_dim" and not inputs[0].shape:
      self._values[result] = np.full(shape, inputs[0])
    elif on_host and name in _BY_NUMPY:
      self._values[result] = np.asarray(_BY_NUMPY[name](*inputs))
    elif name.startswith("random_") and not shape:  # derives a key
      self._values[result] = equation.primitive.bind(*inputs, **params)
    else:
      self._left.append(equation)

  def _scaled(self, one: Any, other: Any) -> np.ndarray | None:
    """Multiplies a draw by a scalar; None if the factors are others."""
    draw = None if isinstance(one, core.Literal) else self._values[one]
    if not isinstance(draw, _Draw) or other.aval.shape:
      return None
    return draw.scaled(self._read(other))

  def _compile_left(self) -> None:
    """Computes by one program what has been left."""
    made = {x for equation in self._left for x in equation.outvars}
    used = _variables(x for equation in self._left for x in equation.invars)
    given = [x for x in self._values if x in used]
    wanted = [x for x in _variables(self._jaxpr.outvars) if x in made]

    def program(inputs: list[Any]) -> list[Any]:
      values = dict(zip(given, inputs, strict=True))
      for equation in self._left:
        read = [
          atom.val if isinstance(atom, core.Literal) else values[atom]
          for atom in equation.invars
        ]
        results = equation.primitive.bind(*read, **equation.params)
        if not equation.primitive.multiple_results:
          results = [results]
        values |= zip(equation.outvars, results, strict=True)
      return [values[x] for x in wanted]

    if wanted:
      results = jax.jit(program)([self._read(atom) for atom in given])
      self._values |= zip(wanted, results, strict=True)


def _needed(jaxpr: Any) -> list[Any]:
  """Returns the equations that the results depend on, in order."""
  needed, kept = _variables(jaxpr.outvars), []
  for equation in reversed(jaxpr.eqns):
    if any(x in needed for x in equation.outvars):
      kept.append(equation)
      needed |= _variables(equation.invars)
  return kept[::-1]


def _variables(atoms: Iterable[Any]) -> dict[Any, None]:
  """Returns the variables among literals, each once, in order."""
  return dict.fromkeys(x for x in atoms if not isinstance(x, core.Literal))
