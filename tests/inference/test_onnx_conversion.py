"""JAX programs and the ONNX operations they become."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import lax

from fer_jax.errors import UserError
from fer_jax.inference.onnx.graph import Graph, Tensor, reshape
from fer_jax.inference.onnx.simplify import simplify
from fer_jax.inference.onnx.trace import trace
from fer_jax.inference.onnx.write import to_model

SHAPE = (6, 8, 3)
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
MATRIX = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
ROWS = np.random.default_rng(2).normal(size=(4, 6)).astype(np.float32)
CHANNELS = np.array([0.5, -2.0, 3.0], np.float32)


def converted(function) -> onnx.ModelProto:
  graph = trace(lambda images: function(as_floats(images)), SHAPE)
  simplify(graph)
  shape = next(n.shape for n in graph.nodes if n.output == graph.output)
  proto = to_model(graph, "test", "result", shape)
  onnx.checker.check_model(proto, full_check=True)
  return proto


def as_floats(images):
  """Numbers from -1.28 to 1.27."""
  return images.astype(jnp.float32) / 100 - 1.28


def check(function) -> collections.Counter[str]:
  """Compares results with JAX's, for batches of 1 and 3; counts operators."""
  proto = converted(function)
  session = onnxruntime.InferenceSession(
    proto.SerializeToString(), providers=["CPUExecutionProvider"]
  )
  rng = np.random.default_rng(3)
  for count in (1, 3):
    images = rng.integers(256, size=(count, *SHAPE), dtype=np.uint8)
    expected = np.asarray(function(as_floats(jnp.asarray(images))))
    (got,) = session.run(None, {"images": images})
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
  found = collections.Counter(node.op_type for node in proto.graph.node)
  found.subtract(["Cast", "Mul", "Add"])  # those of `as_floats`
  return +found


def convolve(x, kernel=KERNEL, padding="SAME", strides=(1, 1), **options):
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    **options,
  )


def max_pool(x, window=(1, 3, 3, 1)):
  return lax.reduce_window(
    x, -jnp.inf, lax.max, window, (1, 2, 2, 1), ((0, 0), (1, 1), (0, 1), (0, 0))
  )


PROGRAMS = {
  "abs": jnp.abs,
  "between": lambda x: jnp.where((x > -1) & (x < 0.5), x, 0.25),
  "bias": lambda x: 1 - x * CHANNELS[None, None, None],
  "broadcast": lambda x: jnp.broadcast_to(
    x[:, :, :, None], (*x.shape[:3], 2, 3)
  ),
  "clip": lambda x: jnp.clip(x, -0.5, 0.25),
  "comparisons": lambda x: (
    ((x >= 0) | (x <= -1)).astype(jnp.float32) + (x == x) + ~(x != x)
  ),
  "concatenate": lambda x: jnp.concatenate([x, 2 * x, x], axis=3),
  "convolution": convolve,
  "dilated": lambda x: convolve(x, rhs_dilation=(2, 2)),
  "depthwise": lambda x: convolve(
    x, KERNEL[:, :, :1, :3], feature_group_count=3
  ),
  "strided": lambda x: convolve(x, padding=((2, 0), (0, 1)), strides=(2, 3)),
  "dense": lambda x: x @ MATRIX,
  "dense_of_left": lambda x: jnp.einsum("oh,bhwc->bowc", ROWS, x),
  "divided": lambda x: 2 / (x + 3) + x / CHANNELS[None, None, None],
  "elu": lambda x: jnp.where(x > 0, x, jnp.exp(x) - 1),
  "erf": lax.erf,
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "flatten": lambda x: x.reshape(x.shape[0], -1),
  "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.1),
  "log_sigmoid": jax.nn.log_sigmoid,
  "logs": lambda x: jnp.log(x + 2) + jnp.log1p(jnp.square(x)),
  "max_pool": max_pool,
  "minimum": lambda x: (
    jnp.minimum(x, 2 * x) * jnp.maximum(x, CHANNELS[None, None, None])
  ),
  "powers": lambda x: x**3 + x**2,
  "reduce": lambda x: x.max(axis=1) + x.min(axis=1) + x.sum(axis=1),
  "relu6": jax.nn.relu6,
  "roots": lambda x: jnp.sqrt(x + 2) * lax.rsqrt(x + 2),
  "sigmoid": jax.nn.silu,
  "slices": lambda x: lax.slice_in_dim(
    lax.slice_in_dim(x, 1, 5, 2, axis=1), 2, 8, axis=2
  ),
  "softmax": jax.nn.softmax,
  "split": lambda x: jnp.split(x, 3, axis=3)[1] - x,
  "squeeze": lambda x: jnp.squeeze(lax.slice_in_dim(x, 0, 1, axis=1), axis=1),
  "stack": lambda x: jnp.stack([x, 3 * x], axis=2),
  "tanh": jnp.tanh,
  "transpose": lambda x: x.transpose(0, 3, 2, 1).reshape(x.shape[0], 24, 6),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_as_jax(name):
  check(PROGRAMS[name])


def test_batch_norm_is_folded_into_the_layer_before_it():
  def normalized(y):
    return (y - 0.1) * jnp.arange(1.0, y.shape[-1] + 1) + 0.2

  with jax.numpy_rank_promotion("allow"):
    assert check(lambda x: normalized(convolve(x))) == {
      "Conv": 1,
      "Transpose": 2,
    }
    assert check(lambda x: normalized(x.mean(axis=(1, 2)) @ MATRIX)) == {
      "ReduceMean": 1,
      "Gemm": 1,
    }


def test_what_is_used_twice_is_not_folded():
  def program(x):
    y = convolve(x)
    return y * 2 + jnp.tanh(y)

  assert check(program)["Conv"] == 1


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("leaky_relu", {"LeakyRelu": 1}),
    ("relu6", {"Clip": 1}),
    ("clip", {"Clip": 1}),
    ("max_pool", {"Transpose": 2, "MaxPool": 1}),
    ("flatten", {"Reshape": 1}),
    ("dense", {"MatMul": 1}),
  ],
)
def test_few_operators(name, expected):
  assert check(PROGRAMS[name]) == expected


def test_maps_stay_channels_first():
  def program(x):
    y = jax.nn.relu(convolve(x))
    mean = y.reshape(y.shape[0], -1, 4).mean(axis=1)
    weights = jnp.stack([y.max(axis=3), y.mean(axis=3)], axis=3)
    y = y * mean[:, None, None] * convolve(weights, KERNEL[:, :, :2, :1])
    return y.mean(axis=(1, 2))

  assert check(program)["Transpose"] == 1  # of the images


def test_repeated_channels_are_expanded_once():
  found = check(
    lambda x: jnp.repeat(lax.slice_in_dim(x, 0, 1, axis=3), 3, axis=3)
  )
  assert found == {"Slice": 1, "Expand": 1}


UNSUPPORTED = {
  "'sort' of the model": lambda x: jnp.sort(x),
  "'scan'": lambda x: lax.scan(lambda c, _: (c * 2, None), x, None, 3)[0],
  "dot_general of two computed": lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x),
  "lhs_dilation": lambda x: convolve(
    x, padding=((1, 1), (1, 1)), lhs_dilation=(2, 2)
  ),
  "reduce_window_max other": lambda x: max_pool(x, (1, 3, 3, 3)),
  "slice along the batch": lambda x: lax.slice_in_dim(
    x, 0, x.shape[0], 2, axis=0
  ),
  "does not depend on the images": lambda x: jnp.zeros(3),
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_is_not_supported_is_named(message):
  with pytest.raises(UserError, match=f"cannot export to ONNX.*{message}"):
    converted(UNSUPPORTED[message])


def test_a_reshape_keeps_a_layout_that_allows_it():
  maps = Tensor("x", (-1, 4, 5, 8), (0, 3, 1, 2))
  for shape, layout in (
    ((-1, 20, 8), (0, 2, 1)),
    ((-1, 4, 5, 2, 4), (0, 3, 4, 1, 2)),
    ((-1, 4, 1, 5, 8), (0, 2, 4, 1, 3)),
    ((-1, 160), (0, 1)),  # stored again first, and then as it is
  ):
    graph = Graph("x", (-1, 8, 4, 5))
    assert reshape(graph, maps, shape).layout == layout
    transposes = [n for n in graph.nodes if n.op == "Transpose"]
    assert len(transposes) == (shape == (-1, 160))
