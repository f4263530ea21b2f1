r"""Compares training on simulated devices and in several processes with one.

python benchmarks/scaling.py [--devices=1,2,4] [--processes=1,2] \
  [--model=resnet18] [--batch_size=64] [--output=benchmarks/results]

All share this machine's cores, so nothing gets faster: what is looked at is
that the same global batches give the same parameters, and what spreading them
costs. Optimiser: SGD, since Adam turns rounding of a gradient near zero into a
whole step. Nothing is dropped, since that is drawn by device. Processes meet at
127.0.0.1 (`jax.distributed`). They wait on their pipes while others are timed,
and are not stopped: each must see that the others live.
"""

import contextlib
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import reporting
import scaling_worker
import workers
from absl import flags
from matplotlib.figure import Figure
from reporting import Column, Row
from timing import Timing
from workers import Worker, WorkerError

from fer_jax import errors
from fer_jax.cli import app
from fer_jax.models import registry
from fer_jax.training.data_parallel import MODES

# Of the parameters' difference over their change. Float32 sums in another
# order, and ReLUs that rounding turns on or off, make 0.01 - 0.02 of a
# ResNet-18, by XLA alone too; an average that is left out makes 0.5 and more.
TOLERANCE = 5e-2


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "resnet18", "What is trained.")
  flags.DEFINE_list("devices", "1,2,4", "Simulated, in one process.")
  flags.DEFINE_list("processes", "1,2", "Of one device each.")
  flags.DEFINE_enum("parallel", "auto", MODES, "How steps are spread.")
  flags.DEFINE_integer("batch_size", 64, "Over all devices.", lower_bound=1)
  flags.DEFINE_integer("image_size", 48, "Pixels.", lower_bound=16)
  flags.DEFINE_integer(
    "steps", 3, "Before parameters are compared.", lower_bound=1
  )
  flags.DEFINE_integer("turns", 5, "Measurements of each.", lower_bound=1)
  flags.DEFINE_integer("calls", 3, "Steps of each turn.", lower_bound=1)
  flags.DEFINE_string("output", "benchmarks/results", "Where tables go.")


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  del argv
  given = flags.FLAGS
  layouts = [
    (1, devices)
    for devices in reporting.whole_numbers("devices", given.devices)
  ] + [
    (processes, 1)
    for processes in reporting.whole_numbers("processes", given.processes)
  ]
  layouts = list(dict.fromkeys([(1, 1), *layouts]))
  for processes, devices in layouts:
    if given.batch_size % (processes * devices):
      raise errors.UserError(
        f"--batch_size={given.batch_size} must be a multiple of"
        f" {processes * devices} devices"
      )
  case = {
    "model": reporting.named_models([given.model])[0],
    "batch_size": given.batch_size,
    "image_size": given.image_size,
    "parallel": given.parallel,
  }
  table = reporting.Table(COLUMNS, given.output, "scaling")
  table.add(measure(case, layouts, given.steps, given.turns, given.calls))
  table.finish(picture)


def measure(
  case: dict[str, Any],
  layouts: Sequence[tuple[int, int]],
  steps: int,
  turns: int,
  calls: int,
) -> list[Row]:
  """Trains by every layout, compares, and times turn by turn.

  Args:
    case: `model`, `batch_size`, `image_size`, `parallel`.
    layouts: (processes, devices of each); the first is what others are
      compared with.
    steps: before parameters are compared.
    turns: measurements of each.
    calls: steps of a turn.

  Returns:
    A row for each layout.

  Raises:
    UserError: a process failed.
  """
  with tempfile.TemporaryDirectory(prefix="scaling_") as folder:
    with workers.ended([]) as started:
      try:
        return _measure(case, layouts, steps, turns, calls, folder, started)
      except WorkerError as e:
        raise errors.UserError(f"a process could not train: {e}") from e


def _measure(
  case: dict[str, Any],
  layouts: Sequence[tuple[int, int]],
  steps: int,
  turns: int,
  calls: int,
  folder: str,
  started: list[Worker],
) -> list[Row]:
  drops = "dropout" in registry.options_of(case["model"])
  case = {**case, "options": {"dropout": 0.0} if drops else {}}
  groups, about, trained = [], [], []
  for i, (processes, devices) in enumerate(layouts):
    reporting.progress(
      f"{processes} processes of {devices} devices prepare ..."
    )
    group = _group(case, processes, devices)
    started += group
    path = f"{folder}/{i}.npz"
    about.append(_ask(group, "prepare", steps=steps, parameters=path)[0])
    groups.append(group)
    with np.load(path) as file:
      trained.append({name: file[name] for name in file.files})
  seconds: list[list[float]] = [[] for _ in layouts]
  for turn in range(turns):
    for i, group in enumerate(groups):
      reporting.progress(f"turn {turn + 1} of {turns}, {layouts[i]} ...")
      # Processes end a step together; the slowest tells.
      seconds[i].append(max(_ask(group, "time", steps=calls)))
  reporting.progress("")
  timings = [Timing.of(values) for values in seconds]
  first, rows = trained[0], []
  changed = np.linalg.norm(first["after"] - first["before"])
  for i, (processes, devices) in enumerate(layouts):
    difference = trained[i]["after"] - first["after"]
    relative = float(np.linalg.norm(difference) / changed)
    rows.append(
      {
        "processes": processes,
        "devices": processes * devices,
        "mode": about[i]["mode"],
        "model": case["model"],
        "batch_size": case["batch_size"],
        "image_size": case["image_size"],
        "steps": steps,
        "max_difference": float(np.abs(difference).max()),
        "relative_difference": relative,
        "same": relative < TOLERANCE,
        "ms": round(1e3 * timings[i].median, 3),
        "ms_low": round(1e3 * timings[i].low, 3),
        "ms_high": round(1e3 * timings[i].high, 3),
        "num_turns": turns,
        "overhead": round(timings[i].median / timings[0].median - 1, 4),
        **reporting.machine(),
      }
    )
  return rows


def _group(case: dict[str, Any], processes: int, devices: int) -> list[Worker]:
  """Starts the processes of a layout."""
  with contextlib.closing(socket.socket()) as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  return [
    Worker(
      Path(scaling_worker.__file__),
      {
        **case,
        "dtype": "float32",
        "channels": 1,
        "optimizer": "sgd",
        "steps_per_call": 1,
        "address": address,
        "process": process,
        "num_processes": processes,
      },
      {**workers.with_devices(devices), "JAX_PLATFORMS": "cpu"},
      freeze=False,
    )
    for process in range(processes)
  ]


def _ask(group: Sequence[Worker], what: str, **arguments: Any) -> list[Any]:
  """Asks all at once, then waits for all."""
  for worker in group:
    worker.send(what, **arguments)
  return [worker.receive() for worker in group]


COLUMNS = (
  Column("processes", 9, lambda row: str(row["processes"])),
  Column("devices", 7, lambda row: str(row["devices"])),
  Column("mode", 9, lambda row: row["mode"]),
  Column(
    "step ms",
    24,
    lambda row: "{ms:,.1f} ({ms_low:,.1f}-{ms_high:,.1f})".format(**row),
  ),
  Column("overhead", 8, lambda row: f"{row['overhead']:+.0%}"),
  Column("max difference", 14, lambda row: f"{row['max_difference']:.1e}"),
  Column("of change", 9, lambda row: f"{row['relative_difference']:.1e}"),
  Column("same", 4, lambda row: "yes" if row["same"] else "no"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the time of a step by layout."""
  figure = Figure(figsize=(6, 3.5), layout="constrained")
  axes = figure.subplots()
  places = range(len(rows))
  axes.bar(places, [row["ms"] for row in rows], color="#1b7f5c")
  for place, row in zip(places, rows, strict=True):
    axes.annotate(
      f"{row['overhead']:+.0%}\ndiff. {row['max_difference']:.0e}",
      (place, row["ms"]),
      textcoords="offset points",
      xytext=(0, 4),
      ha="center",
      fontsize=8,
    )
  labels = [f"{r['processes']} proc.\n{r['devices']} dev." for r in rows]
  axes.set_xticks(places, labels)
  axes.margins(y=0.2)
  axes.set_ylabel(f"ms a step of {rows[0]['batch_size']} images")
  axes.set_title(rows[0]["machine"], fontsize=9)
  axes.spines[["top", "right"]].set_visible(False)
  return figure


if __name__ == "__main__":
  define_flags()
  app.run(main)
