r"""Times training and inference beside PyTorch and plain Flax.

python benchmarks/peers.py [--models=resnet18,resnet50,mobilenet_v2] \
  [--batch_size=64] [--dtypes=float32] [--torch_dtypes=float32,bfloat16] \
  [--modes=eager,compiled] [--turns=7] [--output=benchmarks/results]

Needs the extra `reference` for PyTorch; what is not there is named and left
out. Architecture, weights, batch, optimiser (Adam) and classes are the same,
and before anything is timed the number of parameters and the loss of one batch
must be. Each library has a process of its own; they are timed turn by turn,
while all others are stopped. PyTorch has as many threads as there are cores.
"""

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import peer_worker
import reporting
import workers
from absl import flags
from matplotlib.figure import Figure
from reporting import Column, Row
from timing import Timing
from workers import Worker, WorkerError

from fer_jax import errors

MODELS = "resnet18,resnet50,mobilenet_v2"
DTYPES = ("float32", "bfloat16")
MODES = ("eager", "compiled")
LIBRARIES = ("pytorch", "fer_jax", "flax")  # PyTorch writes the weights.
LOSS_TOLERANCE = 1e-4
COLOURS = {"fer_jax": "#1b7f5c", "pytorch": "#c2571a", "flax": "#5b6bb5"}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("models", MODELS, "Names or patterns of models.")
  flags.DEFINE_integer("batch_size", 64, "Of training.", lower_bound=2)
  flags.DEFINE_list("inference", "1,256", "Batch sizes of inference.")
  flags.DEFINE_integer("image_size", 48, "Pixels.", lower_bound=32)
  flags.DEFINE_list("dtypes", "float32", "Of fer_jax and plain Flax.")
  flags.DEFINE_list("torch_dtypes", ",".join(DTYPES), "Of PyTorch.")
  flags.DEFINE_list("modes", ",".join(MODES), "Of PyTorch.")
  flags.DEFINE_integer("turns", 7, "Measurements of each.", lower_bound=1)
  flags.DEFINE_float("seconds", 1.0, "Of a turn, about.", lower_bound=0.0)
  flags.DEFINE_string("output", "benchmarks/results", "Where tables go.")


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  sizes = reporting.whole_numbers("inference", given.inference)
  case = {
    "batch_size": given.batch_size,
    "image_size": given.image_size,
    "dtypes": reporting.chosen("dtypes", given.dtypes, DTYPES),
    "torch_dtypes": reporting.chosen(
      "torch_dtypes", given.torch_dtypes, DTYPES
    ),
    "modes": reporting.chosen("modes", given.modes, MODES),
    "works": [peer_worker.TRAINING, *(f"inference {size}" for size in sizes)],
    "turns": given.turns,
    "seconds": given.seconds,
  }
  rows = []
  print(reporting.header(COLUMNS), flush=True)
  for model in reporting.named_models(given.models):
    for row in measure({**case, "model": model}):
      rows.append(row)
      print(reporting.line(COLUMNS, row), flush=True)
  print(f"PyTorch had {reporting.physical_cores()} threads.")
  reporting.write(rows, Path(given.output), "peers", picture(rows))


def measure(case: dict[str, Any]) -> Iterator[Row]:
  """Measures one model in all libraries.

  Args:
    case: `model`, `batch_size`, `image_size`, `dtypes`, `torch_dtypes`,
      `modes`, `works`, `turns`, `seconds` (of a turn).

  Yields:
    A row for each library, variant and kind of work.

  Raises:
    UserError: two libraries do not do equal work, or ours fails.
  """
  with tempfile.TemporaryDirectory(prefix="peers_") as folder:
    with workers.ended([]) as started:
      peers = _start(case, folder, started)
      _check_equal(case["model"], {k: about for k, (_, about) in peers.items()})
      for work in case["works"]:
        yield from _measure_work(case, peers, work)
  reporting.progress("")


def _start(
  case: dict[str, Any], folder: str, started: list[Worker]
) -> dict[str, tuple[Worker, dict[str, Any]]]:
  """Starts each library's process; those that cannot are named, left out."""
  peers = {}
  for library in LIBRARIES:
    reporting.progress(f"{case['model']}: {library} prepares ...")
    torch = library == "pytorch"
    worker = Worker(
      Path(peer_worker.__file__),
      {
        **case,
        "library": library,
        "dtypes": case["torch_dtypes" if torch else "dtypes"],
        "weights": f"{folder}/weights.safetensors",
        # What transformers' own options are here, see peer_torch.
        "options": _options(case["model"]),
        "threads": reporting.physical_cores(),
      },
      # Processes share a GPU; each takes what it needs.
      {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    )
    started.append(worker)
    try:
      peers[library] = worker, worker.ask("prepare")
    except WorkerError as e:
      if library == "fer_jax":
        raise errors.UserError(
          f"{case['model']} cannot be measured: {e}"
        ) from e
      reporting.progress("")
      print(f"{case['model']}: {library} is left out: {e}", flush=True)
  return peers


def _options(model: str) -> dict[str, Any]:
  """Options of our model that file formats would have otherwise."""
  if model.startswith("mobilenet"):
    return {"padding": "torch", "norm_epsilon": 1e-5}
  return {}


def _check_equal(model: str, about: dict[str, dict[str, Any]]) -> None:
  """Raises UserError unless sizes are equal, and losses nearly."""
  ours = about["fer_jax"]
  for library, theirs in about.items():
    same_size = theirs["num_parameters"] == ours["num_parameters"]
    if not same_size or not math.isclose(
      theirs["loss"], ours["loss"], rel_tol=0, abs_tol=LOSS_TOLERANCE
    ):
      raise errors.UserError(
        f"{model}: {library} has {theirs['num_parameters']:,} parameters and"
        f" loss {theirs['loss']:.6f}, fer_jax {ours['num_parameters']:,} and"
        f" {ours['loss']:.6f}: that would not be equal work"
      )


def _measure_work(
  case: dict[str, Any],
  peers: dict[str, tuple[Worker, dict[str, Any]]],
  work: str,
) -> list[Row]:
  """Times all variants turn by turn."""
  steps: dict[tuple[str, str], int] = {}
  for library, (worker, about) in peers.items():
    for variant in about["variants"]:
      name = f"{case['model']}, {work}: {library} {variant}"
      reporting.progress(f"{name} compiles ...")
      try:
        steps[library, variant] = worker.ask(
          "warm_up", variant=variant, work=work, seconds=case["seconds"]
        )
      except WorkerError as e:
        reporting.progress("")
        print(f"{name} is left out: {e}", flush=True)
  seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
  for turn, (library, variant) in itertools.product(
    range(case["turns"]), steps
  ):
    reporting.progress(
      f"{case['model']}, {work}: turn {turn + 1} of {case['turns']}, {library}"
    )
    key = (library, variant)
    try:
      taken = peers[library][0].ask(
        "time", variant=variant, work=work, steps=steps[key]
      )
    except WorkerError as e:
      raise errors.UserError(f"{library} failed while timed: {e}") from e
    seconds[key].append(taken)
  timings = {key: Timing.of(values) for key, values in seconds.items()}
  reporting.progress("")
  images = peer_worker.images_of(work, case["batch_size"])
  return _rows(case, peers, work, images, timings)


def _rows(
  case: dict[str, Any],
  peers: dict[str, tuple[Worker, dict[str, Any]]],
  work: str,
  images: int,
  timings: dict[tuple[str, str], Timing],
) -> list[Row]:
  """The rows of one kind of work, with ratios to the best of the peers."""

  def best(*libraries: str, dtypes: Sequence[str] = DTYPES) -> float | None:
    medians = (
      timing.median
      for (library, variant), timing in timings.items()
      if library in libraries
      and peers[library][1]["variants"][variant] in dtypes
    )
    return min(medians, default=None)

  torch_float32 = best("pytorch", dtypes=["float32"])
  best_of_all = best("pytorch", "flax")
  rows = []
  for (library, variant), timing in timings.items():
    about = peers[library][1]
    rows.append(
      {
        "model": case["model"],
        "work": work,
        "batch_size": images,
        "image_size": case["image_size"],
        "library": library,
        "variant": "" if library != "pytorch" else variant.rsplit(" ", 1)[0],
        "dtype": about["variants"][variant],
        "ms": round(1e3 * timing.median, 4),
        "ms_low": round(1e3 * timing.low, 4),
        "ms_high": round(1e3 * timing.high, 4),
        "num_turns": timing.num_turns,
        "images_per_second": round(images / timing.median, 2),
        "times_best_float32_pytorch": _ratio(torch_float32, timing),
        "times_best_peer": _ratio(best_of_all, timing),
        "num_parameters": about["num_parameters"],
        "loss": round(about["loss"], 6),
        "torch_threads": reporting.physical_cores(),
        **reporting.machine("torch", "transformers"),
      }
    )
  return rows


def _ratio(other: float | None, timing: Timing) -> float | str:
  """How many times as fast as another; "" without one."""
  return "" if other is None else round(other / timing.median, 3)


def _times(value: float | str) -> str:
  return "-" if value == "" else f"{value:.2f}"


COLUMNS = (
  Column("model", 16, lambda row: row["model"], left=True),
  Column("work", 13, lambda row: row["work"], left=True),
  Column("library", 8, lambda row: row["library"], left=True),
  Column("variant", 22, lambda row: row["variant"], left=True),
  Column("dtype", 8, lambda row: row["dtype"], left=True),
  Column(
    "step ms",
    24,
    lambda row: "{ms:.2f} ({ms_low:.2f}-{ms_high:.2f})".format(**row),
  ),
  Column("images/s", 9, lambda row: f"{row['images_per_second']:,.1f}"),
  Column(
    "x torch fp32", 12, lambda row: _times(row["times_best_float32_pytorch"])
  ),
  Column("x best peer", 11, lambda row: _times(row["times_best_peer"])),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws images/s of every variant, one panel a model and kind of work."""
  names = list(dict.fromkeys(row["model"] for row in rows))
  works = list(dict.fromkeys(row["work"] for row in rows))
  most = max(
    sum(row["model"] == name and row["work"] == work for row in rows)
    for name, work in itertools.product(names, works)
  )
  figure = Figure(
    figsize=(5 * len(works) + 1, len(names) * (0.24 * most + 0.9) + 0.5),
    layout="constrained",
  )
  panels = figure.subplots(len(names), len(works), squeeze=False)
  for i, j in itertools.product(range(len(names)), range(len(works))):
    of = [r for r in rows if (r["model"], r["work"]) == (names[i], works[j])]
    axes, places = panels[i][j], range(len(of))
    rates = [row["images_per_second"] for row in of]
    low = [1e3 * row["batch_size"] / row["ms_high"] for row in of]
    high = [1e3 * row["batch_size"] / row["ms_low"] for row in of]
    axes.barh(
      places,
      rates,
      xerr=[
        [max(0.0, r - x) for r, x in zip(rates, low, strict=True)],
        [max(0.0, x - r) for r, x in zip(rates, high, strict=True)],
      ],
      color=[COLOURS[row["library"]] for row in of],
      error_kw={"ecolor": "#444444", "elinewidth": 1},
    )
    labels = [
      " ".join(
        filter(
          None,
          (
            row["library"],
            row["variant"],
            "bf16" if row["dtype"] == "bfloat16" else "",
          ),
        )
      )
      for row in of
    ]
    axes.set_yticks(places, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_title(f"{names[i]}, {works[j]}", fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
  figure.supxlabel(
    "images per second (bars: median; lines: all turns)", fontsize=9
  )
  figure.suptitle(rows[0]["machine"], fontsize=9)
  return figure


if __name__ == "__main__":
  define_flags()
  errors.run(main)
