r"""Times every lowering of every convolution and pooling of the models.

python benchmarks/ops.py [--models=resnet18,resnet50,mobilenet,mobilenet_v2] \
  [--image_size=48] [--batch_size=64] [--turns=5] [--output=benchmarks/out]

Shapes are those with which the models are traced. The output, the gradient of
the input and the gradient of the kernel are timed separately, with every
lowering that can compute it, interleaved. `*` marks the lowering that fer_jax
uses on this machine, `<` the fastest. GFLOP/s count all products of the
convolution, including those with padding.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import reporting
import timing
from absl import flags
from matplotlib.figure import Figure
from op_shapes import Op, collect
from reporting import Column, Row

from fer_jax.cli import app
from fer_jax.ops import cpu_kernels, cpu_library, dispatch, lowerings
from fer_jax.training.runtime import startup

MODELS = "resnet18,resnet50,mobilenet,mobilenet_v2"


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list(
    "models", MODELS, "Model names or patterns, comma-separated."
  )
  flags.DEFINE_integer(
    "image_size", 48, "Image size in pixels.", lower_bound=32
  )
  flags.DEFINE_integer("batch_size", 64, "Batch size.", lower_bound=1)
  flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Dtype of all arrays."
  )
  flags.DEFINE_integer("turns", 5, "Repetitions.", lower_bound=1)
  flags.DEFINE_integer("calls", 3, "Calls per repetition.", lower_bound=1)
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  startup.start("off")
  found = collect(
    reporting.named_models(given.models), given.image_size, given.batch_size
  )
  table = reporting.Table(COLUMNS, given.output, "ops")
  for i, (op, users) in enumerate(found.items()):
    reporting.progress(f"{i + 1} of {len(found)}: {op.kind} {op.shape} ...")
    rows = measure(op, users, given.dtype, given.turns, given.calls)
    reporting.progress("")
    table.add(rows)
  late = [row for row in table.rows if row["chosen"] and not row["best"]]
  print(f"another lowering was faster than the one used in {len(late)} cases")
  table.finish(picture)


def measure(
  op: Op, users: dict[str, int], dtype: str, turns: int, calls: int
) -> list[Row]:
  """Times the directions of an operation with every lowering.

  Args:
    op: the operation.
    users: how often each model has it.
    dtype: dtype of all arrays.
    turns: number of repetitions.
    calls: calls per repetition.

  Returns:
    One row per direction and lowering.
  """
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], op.image).astype(dtype)
  rows: list[Row] = []
  for direction, chosen, programs in _programs(op, x, keys):
    timings = timing.interleave(
      programs, num_turns=turns, calls_per_turn=calls, warm_up=2
    )
    best = min(timings, key=lambda name, t=timings: t[name].median)  # type: ignore[misc]
    rows += [
      {
        "kind": op.kind,
        "shape": op.shape,
        "batch_size": op.image[0],
        "dtype": dtype,
        "direction": direction,
        "lowering": name,
        "ms": round(1e3 * t.median, 4),
        "ms_low": round(1e3 * t.low, 4),
        "ms_high": round(1e3 * t.high, 4),
        "num_turns": t.num_turns,
        "gflops_per_second": round(op.flops / t.median / 1e9, 2),
        "chosen": name == chosen,
        "best": name == best,
        "models": " ".join(f"{model}:{n}" for model, n in users.items()),
        **timing.environment(),
        **reporting.machine(),
      }
      for name, t in timings.items()
    ]
  return rows


Programs = dict[str, Callable[[], Any]]


def _programs(
  op: Op, x: jax.Array, keys: jax.Array
) -> Iterator[tuple[str, str, Programs]]:
  """Yields the direction, the lowering used, and programs of all lowerings."""
  if len(op.kernel) == 2:
    yield from _pool_programs(op, x, keys)
    return
  kernel = (jax.random.normal(keys[1], op.kernel) * 0.1).astype(x.dtype)
  rule = dispatch.rule_for(
    op.image, op.kernel, op.strides, op.pads, jax.default_backend()
  )
  ways = {_name(way): _bound(way, op) for way in _lowerings(op)}
  out = jax.eval_shape(ways["xla"], x, kernel)
  gradient = jax.random.normal(keys[2], out.shape).astype(x.dtype)
  yield (
    "output",
    _name(rule.forward),
    {name: _call(way, x, kernel) for name, way in ways.items()},
  )

  def to_input(way: Any) -> Any:
    return lambda x, k, g: jax.vjp(lambda x: way(x, k), x)[1](g)

  def to_kernel(way: Any) -> Any:
    return lambda x, k, g: jax.vjp(lambda k: way(x, k), k)[1](g)

  for direction, of, chosen in (
    ("input gradient", to_input, rule.input_gradient),
    ("kernel gradient", to_kernel, rule.kernel_gradient),
  ):
    yield (
      direction,
      _name(chosen),
      {name: _call(of(way), x, kernel, gradient) for name, way in ways.items()},
    )


def _pool_programs(
  op: Op, x: jax.Array, keys: jax.Array
) -> Iterator[tuple[str, str, Programs]]:
  window, pads = (op.kernel[0], op.kernel[1]), op.pads
  ways: dict[str, Any] = {
    "xla": lambda x: nn.max_pool(x, window, op.strides, pads),
    "shift_and_max": lambda x: lowerings.max_pool(x, window, op.strides, pads),
  }
  chosen = "shift_and_max" if jax.default_backend() == "cpu" else "xla"
  out = jax.eval_shape(ways["xla"], x)
  gradient = jax.random.normal(keys[2], out.shape).astype(x.dtype)
  yield "output", chosen, {n: _call(way, x) for n, way in ways.items()}

  def backward(way: Any) -> Any:
    return lambda x, g: jax.vjp(way, x)[1](g)

  yield (
    "input gradient",
    chosen,
    {n: _call(backward(way), x, gradient) for n, way in ways.items()},
  )


def _name(way: dispatch.Lowering) -> str:
  """Returns the name of a lowering."""
  if way.__module__ == cpu_kernels.__name__:
    return "cpp_kernel"
  return way.__name__


def _lowerings(op: Op) -> list[dispatch.Lowering]:
  """Returns the lowerings that can compute a convolution."""
  kernels = (
    [] if cpu_library.unavailable_reason() else [cpu_kernels.convolution]
  )
  if op.image[3] != op.kernel[2]:
    if op.kernel[2] > 1 or op.kernel[3] != op.image[3]:
      return [lowerings.xla]
    kernels = kernels and [cpu_kernels.depthwise]
    return [lowerings.xla, lowerings.depthwise, *kernels]
  if op.kernel[2] <= 4:
    kernels = kernels and [cpu_kernels.stem]
  elif op.kernel[2] % cpu_kernels.CHANNEL_MULTIPLE:
    kernels = []
  if op.kernel[3] % cpu_kernels.CHANNEL_MULTIPLE:
    kernels = []
  ways = [lowerings.xla, lowerings.shift_and_add, *kernels]
  if op.kernel[:2] == (1, 1):
    unpadded = op.pads == ((0, 0), (0, 0))
    return [*ways, *([lowerings.pointwise] if unpadded else [])]
  ways.append(lowerings.im2col)
  return [*ways, *([lowerings.space_to_depth] if max(op.strides) > 1 else [])]


def _bound(way: dispatch.Lowering, op: Op) -> Any:
  return lambda x, kernel: way(x, kernel, op.strides, op.pads)


def _call(fn: Any, *args: Any) -> Callable[[], Any]:
  """Returns a call of the compiled function with these arrays."""
  compiled = jax.jit(fn)
  return lambda: compiled(*args)


COLUMNS = (
  Column("operation", 14, lambda row: row["kind"], left=True),
  Column("map, channels /stride", 24, lambda row: row["shape"], left=True),
  Column("direction", 15, lambda row: row["direction"], left=True),
  Column(
    "lowering",
    17,
    lambda row: (
      f"{row['lowering']} {'*' if row['chosen'] else ''}"
      f"{'<' if row['best'] else ''}"
    ),
    left=True,
  ),
  Column(
    "ms",
    24,
    lambda row: "{ms:.2f} ({ms_low:.2f}-{ms_high:.2f})".format(**row),
  ),
  Column(
    "GFLOP/s",
    8,
    lambda row: (
      f"{row['gflops_per_second']:,.0f}" if row["gflops_per_second"] else "-"
    ),
  ),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the times of the lowering used and of XLA over the fastest."""
  groups: dict[tuple[str, str, str], list[Row]] = {}
  for row in rows:
    key = (row["kind"], row["shape"], row["direction"])
    groups.setdefault(key, []).append(row)
  ratios = {}
  for key, of in groups.items():
    used = next((row["ms"] for row in of if row["chosen"]), None)
    if used is not None:
      least = max(min(row["ms"] for row in of), 1e-9)
      xla = next(row["ms"] for row in of if row["lowering"] == "xla")
      ratios[key] = used / least, xla / least
  figure = Figure(figsize=(9, 0.18 * len(ratios) + 1.5), layout="constrained")
  axes = figure.subplots()
  positions = range(len(ratios))
  used_ratios = [used for used, _ in ratios.values()]
  xla_ratios = [xla for _, xla in ratios.values()]
  axes.plot(
    xla_ratios, positions, "x", color="#c2571a", label="XLA's operation"
  )
  axes.plot(used_ratios, positions, "o", color="#1b7f5c", label="lowering used")
  axes.set_xscale("log")
  axes.set_yticks(positions, [", ".join(key) for key in ratios], fontsize=6)
  axes.margins(y=0.01)
  axes.invert_yaxis()
  axes.set_xlabel("time relative to the fastest lowering")
  axes.grid(axis="x", alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False)
  axes.set_title(rows[0]["machine"], fontsize=9)
  return figure


if __name__ == "__main__":
  define_flags()
  app.run(main)
