r"""Compares training on several simulated devices and processes with one.

python benchmarks/scaling.py [--devices=1,2,4] [--processes=1,2] \
  [--model=resnet18] [--batch_size=64] [--output=benchmarks/out]

All devices share the cores of this machine, so nothing gets faster: measured
are whether equal global batches give equal parameters, and the overhead of data
parallelism. The optimizer is SGD, since Adam turns the rounding of a gradient
near zero into a whole step. Processes connect through 127.0.0.1
(`jax.distributed`). While others are timed they wait for input, and are not
stopped, so that their heartbeats continue.
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
from fer_jax.training.data_parallel import MODES

# Difference of the parameters relative to their change. The order of float32
# sums, and ReLUs switched by rounding, cause 0.01 - 0.02 in a ResNet-18, also
# with XLA's operations only; a missing average causes more than 0.5.
TOLERANCE = 5e-2


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("model", "resnet18", "Model.")
  flags.DEFINE_list(
    "devices", "1,2,4", "Numbers of simulated devices in one process."
  )
  flags.DEFINE_list(
    "processes", "1,2", "Numbers of processes with one device each."
  )
  flags.DEFINE_enum("parallel", "auto", MODES, "Mode of data parallelism.")
  flags.DEFINE_integer("batch_size", 64, "Global batch size.", lower_bound=1)
  flags.DEFINE_integer(
    "image_size", 48, "Image size in pixels.", lower_bound=16
  )
  flags.DEFINE_integer(
    "steps", 3, "Steps before the parameters are compared.", lower_bound=1
  )
  flags.DEFINE_integer("turns", 5, "Repetitions.", lower_bound=1)
  flags.DEFINE_integer("calls", 3, "Steps per repetition.", lower_bound=1)
  reporting.define_output()


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
        f"batch_size={given.batch_size} must be a multiple of"
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
  """Trains with every layout, compares the parameters and times the steps.

  Args:
    case: `model`, `batch_size`, `image_size`, `parallel`.
    layouts: (processes, devices per process); the others are compared with the
      first.
    steps: steps before the parameters are compared.
    turns: number of repetitions, interleaved.
    calls: steps per repetition.

  Returns:
    One row per layout.

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
  groups, about, trained = [], [], []
  for i, (processes, devices) in enumerate(layouts):
    reporting.progress(
      f"preparing {processes} processes of {devices} devices ..."
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
      reporting.progress(f"repetition {turn + 1} of {turns}, {layouts[i]} ...")
      # Processes end a step together: the slowest determines its time.
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
  """Sends a request to all processes, then waits for all."""
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
  Column("relative", 9, lambda row: f"{row['relative_difference']:.1e}"),
  Column("same", 4, lambda row: "yes" if row["same"] else "no"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the time per step of each layout."""
  figure = Figure(figsize=(6, 3.5), layout="constrained")
  axes = figure.subplots()
  positions = range(len(rows))
  axes.bar(positions, [row["ms"] for row in rows], color="#1b7f5c")
  for position, row in zip(positions, rows, strict=True):
    axes.annotate(
      f"{row['overhead']:+.0%}\nmax. diff. {row['max_difference']:.0e}",
      (position, row["ms"]),
      textcoords="offset points",
      xytext=(0, 4),
      ha="center",
      fontsize=8,
    )
  labels = [
    f"{_counted(r['processes'], 'process', 'es')}\n"
    f"{_counted(r['devices'], 'device', 's')}"
    for r in rows
  ]
  axes.set_xticks(positions, labels)
  axes.margins(y=0.2)
  axes.set_ylabel(f"ms per step, global batch {rows[0]['batch_size']}")
  axes.set_title(rows[0]["machine"], fontsize=9)
  axes.spines[["top", "right"]].set_visible(False)
  return figure


def _counted(number: int, name: str, plural: str) -> str:
  return f"{number} {name}{plural if number > 1 else ''}"


if __name__ == "__main__":
  define_flags()
  app.run(main)
