r"""Times training and inference, interleaved with PyTorch and plain Flax.

python benchmarks/peers.py [--models=resnet*,mobilenet*,bi_resnet_*,alexnet] \
  [--batch_size=64] [--inference=1,256] [--image_size=48] \
  [--dtypes=float32] [--torch_dtypes=float32,bfloat16] \
  [--modes=eager,compiled,reduce-overhead,graph] \
  [--layouts=contiguous,channels_last] \
  [--libraries=fer_jax,pytorch,flax] [--turns=7] [--seconds=1] \
  [--output=benchmarks/out]

Architecture, weights, batch, optimizer (Adam) and classes are the same; before
the timing, the number of parameters and the loss and gradient of a batch are
compared. Each variant runs in a separate process; repetitions are interleaved,
and all other processes are stopped meanwhile (on Linux). Ratios are computed
per repetition; the best variant of a library has the lowest median. Libraries
that are not installed are skipped (PyTorch: `pip install fer_jax[convert]`).
Every training step gathers uint8 images by index from a dataset on the device.

PyTorch's modes: eager; compiled (`torch.compile`); on NVIDIA GPUs also
reduce-overhead (`torch.compile(mode="reduce-overhead")`) and graph (the whole
eager step as one CUDA graph). By default, all that the machine can run.

Deep models in all ten variants need about 20 GB of memory; `--layouts` and
`--modes` select variants.
"""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import peer_report
import peer_variants
import peer_worker
import reporting
import workers
from absl import flags
from peer_variants import DTYPES, Key
from reporting import Row
from timing import Timing
from workers import Worker, WorkerError

from fer_jax import errors
from fer_jax.cli import app

MODELS = "resnet18,resnet50,mobilenet_v2"


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list(
    "models", MODELS, "Model names or patterns, comma-separated."
  )
  flags.DEFINE_integer(
    "batch_size", 64, "Batch size of training.", lower_bound=2
  )
  flags.DEFINE_list(
    "inference", "1,256", "Batch sizes of inference, comma-separated."
  )
  flags.DEFINE_integer(
    "image_size", 48, "Image size in pixels.", lower_bound=32
  )
  flags.DEFINE_list(
    "libraries", ",".join(peer_variants.LIBRARIES), "Libraries to compare."
  )
  flags.DEFINE_list("dtypes", "float32", "Dtypes of fer_jax and plain Flax.")
  flags.DEFINE_list("torch_dtypes", ",".join(DTYPES), "Dtypes of PyTorch.")
  flags.DEFINE_list(
    "modes", "", "Modes of PyTorch; empty for all that this machine can run."
  )
  flags.DEFINE_list(
    "layouts", ",".join(peer_variants.LAYOUTS), "Memory layouts of PyTorch."
  )
  flags.DEFINE_integer("turns", 7, "Repetitions.", lower_bound=1)
  flags.DEFINE_float(
    "seconds", 1.0, "Approximate length of a repetition.", lower_bound=0.0
  )
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  keys = peer_variants.chosen(
    given.libraries,
    given.dtypes,
    given.torch_dtypes,
    given.modes,
    given.layouts,
  )
  sizes = reporting.whole_numbers("inference", given.inference)
  case = {
    "batch_size": given.batch_size,
    "image_size": given.image_size,
    # Training, which takes the most memory, comes last.
    "works": [*(f"inference {size}" for size in sizes), peer_worker.TRAINING],
    "turns": given.turns,
    "seconds": given.seconds,
  }
  models = reporting.named_models(given.models)
  table = reporting.Table(peer_report.COLUMNS, given.output, "peers")
  for model in models:
    for rows in measure({**case, "model": model}, keys):
      table.add(rows)
  if any(row["library"] == "pytorch" for row in table.rows):
    print(f"PyTorch used {reporting.physical_cores()} threads")
  table.finish(peer_report.picture)


def measure(case: dict[str, Any], keys: Sequence[Key]) -> Iterator[list[Row]]:
  """Measures one model in all variants.

  Args:
    case: `model`, `batch_size`, `image_size`, `works`, `turns`, `seconds` (per
      repetition).
    keys: (library, variant, dtype) of each variant.

  Yields:
    The rows of each kind of work.

  Raises:
    UserError: two libraries compute different results, or ours fails.
  """
  with (
    tempfile.TemporaryDirectory(prefix="peers_") as folder,
    workers.ended([]) as started,
  ):
    peers, about = _start(case, keys, f"{folder}/weights", started)
    peer_variants.check_equal(case["model"], about)
    for work in case["works"]:
      yield _measure_work(case, peers, about, work)


def _start(
  case: dict[str, Any],
  keys: Sequence[Key],
  weights: str,
  started: list[Worker],
) -> tuple[dict[Key, Worker], dict[Key, dict[str, Any]]]:
  """Starts all processes; a variant that fails is reported and skipped."""
  peers, about, missing = {}, {}, set()
  for key in keys:
    library, variant, dtype = key
    if library in missing:
      continue
    reporting.progress(f"{_name(case, key)}: preparing ...")
    worker = Worker(
      Path(peer_worker.__file__),
      {
        **case,
        "library": library,
        "variant": variant,
        "dtype": dtype,
        "weights": weights,
        "threads": reporting.physical_cores(),
      },
      # Processes share a GPU, so none may reserve its memory.
      {**workers.with_devices(1), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
    started.append(worker)
    try:
      about[key] = worker.ask("prepare")
    except WorkerError as e:
      if library == "fer_jax":
        raise errors.UserError(
          f"{case['model']} cannot be measured: {e}"
        ) from e
      if isinstance(e, workers.NotInstalled):
        reporting.skip(f"{case['model']}: {library}", e)
        missing.add(library)
      else:
        reporting.skip(_name(case, key), e)
    else:
      peers[key] = worker
  reporting.progress("")
  return peers, about


def _name(case: Mapping[str, Any], key: Key) -> str:
  return f"{case['model']}: {' '.join(filter(None, key))}"


def _measure_work(
  case: dict[str, Any],
  peers: Mapping[Key, Worker],
  about: Mapping[Key, Mapping[str, Any]],
  work: str,
) -> list[Row]:
  """Times all variants, interleaved."""
  steps: dict[Key, int] = {}
  first: dict[Key, float] = {}
  for key, worker in peers.items():
    reporting.progress(f"{_name(case, key)}, {work}: compiling ...")
    try:
      first[key], steps[key] = worker.ask(
        "warm_up", work=work, seconds=case["seconds"]
      )
    except WorkerError as e:
      reporting.skip(f"{_name(case, key)}, {work}", e)
  if not steps:
    raise errors.UserError(f"{case['model']}, {work}: nothing could be timed")
  seconds: dict[Key, list[float]] = {key: [] for key in steps}
  used: dict[Key, int] = {}
  turns = case["turns"]
  try:
    for turn, key in itertools.product(range(turns), steps):
      reporting.progress(
        f"{_name(case, key)}, {work}: repetition {turn + 1} of {turns}"
      )
      seconds[key].append(peers[key].ask("time", steps=steps[key]))
    for key in steps:
      used[key] = peers[key].ask("memory")
  except WorkerError as e:
    raise errors.UserError(f"{_name(case, key)}, {work}: {e}") from e
  reporting.progress("")
  more = {
    key: {"peak_memory_bytes": used[key], "first_step_s": round(first[key], 3)}
    for key in steps
  }
  return _rows(case, about, work, seconds, more)


def _rows(
  case: Mapping[str, Any],
  about: Mapping[Key, Mapping[str, Any]],
  work: str,
  seconds: Mapping[Key, list[float]],
  more: Mapping[Key, Row],
) -> list[Row]:
  """Returns the rows of one kind of work, with ratios to the best peers."""
  timings = {key: Timing.of(values) for key, values in seconds.items()}

  def best(*libraries: str, dtypes: Sequence[str] = DTYPES) -> Key | None:
    found = [k for k in timings if k[0] in libraries and k[2] in dtypes]
    return min(found, key=lambda key: timings[key].median, default=None)

  references = {
    "times_float32_pytorch": best("pytorch", dtypes=["float32"]),
    "times_best_pytorch": best("pytorch"),
    "times_flax": best("flax"),
  }
  images = peer_worker.images_of(work, case["batch_size"])
  rows = []
  for key, timing in timings.items():
    ratios: Row = {}
    for name, reference in references.items():
      ratios |= _ratio(name, reference and seconds[reference], seconds[key])
    rows.append(
      {
        "model": case["model"],
        "work": work,
        "batch_size": images,
        "image_size": case["image_size"],
        **dict(zip(("library", "variant", "dtype"), key, strict=True)),
        "best": key == best(key[0]),
        "ms": round(1e3 * timing.median, 4),
        "ms_low": round(1e3 * timing.low, 4),
        "ms_high": round(1e3 * timing.high, 4),
        "num_turns": timing.num_turns,
        "images_per_second": round(images / timing.median, 2),
        **ratios,
        **more[key],
        **about[key],
        "torch_threads": reporting.physical_cores(),
        **reporting.machine("torch"),
      }
    )
  return rows


def _ratio(
  name: str, theirs: Sequence[float] | None, ours: Sequence[float]
) -> Row:
  """Returns the speed relative to a peer, per repetition; None without one."""
  if theirs is None:
    return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
  ratios = Timing.of([a / b for a, b in zip(theirs, ours, strict=True)])
  return {
    name: round(ratios.median, 3),
    f"{name}_low": round(ratios.low, 3),
    f"{name}_high": round(ratios.high, 3),
  }


if __name__ == "__main__":
  define_flags()
  app.run(main)
