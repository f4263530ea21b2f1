"""The table and the plot of `host_overhead`."""

import statistics
from collections.abc import Callable, Mapping, Sequence

import reporting
from matplotlib.figure import Figure
from reporting import Column, Row
from timing import Timing

TARGETS_US = {1: 300.0}  # per step, by steps per call
TARGET_SCANNED_US = 20.0  # per step, for several steps per call


def row(
  count: int,
  steps: int,
  batch_size: int,
  seconds: Mapping[tuple[int, str], list[float]],
) -> Row:
  """Returns the row of a number of steps per call.

  Args:
    count: steps per compiled call.
    steps: steps per epoch.
    batch_size: images per step.
    seconds: per step, of each repetition, by steps per call and "loop" or
      "bare".
  """
  timings = {what: Timing.of(seconds[count, what]) for what in ("loop", "bare")}
  pairs = zip(seconds[count, "loop"], seconds[count, "bare"], strict=True)
  overhead = 1e6 * statistics.median(a - b for a, b in pairs)
  target = TARGETS_US.get(count, TARGET_SCANNED_US)
  of: Row = {"steps_per_call": count, "batch_size": batch_size, "steps": steps}
  for what, timing in timings.items():
    of[f"{what}_us"] = round(1e6 * timing.median, 2)
    of[f"{what}_us_low"] = round(1e6 * timing.low, 2)
    of[f"{what}_us_high"] = round(1e6 * timing.high, 2)
  return {
    **of,
    "overhead_us": round(overhead, 2),
    "target_us": target,
    "met": overhead < target,
    "num_turns": timings["loop"].num_turns,
    **reporting.machine(),
  }


def _spread(what: str) -> Callable[[Row], str]:
  return lambda row: (
    f"{row[f'{what}_us']:,.1f}"
    f" ({row[f'{what}_us_low']:,.1f}-{row[f'{what}_us_high']:,.1f})"
  )


COLUMNS = (
  Column("steps/call", 10, lambda row: str(row["steps_per_call"])),
  Column("loop, us/step", 26, _spread("loop")),
  Column("call alone, us/step", 26, _spread("bare")),
  Column("host, us/step", 13, lambda row: f"{row['overhead_us']:,.1f}"),
  Column("target", 7, lambda row: f"< {row['target_us']:,.0f}"),
  Column("met", 3, lambda row: "yes" if row["met"] else "no"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the time per step of the loop and of the compiled call alone."""
  figure = Figure(figsize=(6, 3.5), layout="constrained")
  axes = figure.subplots()
  positions = range(len(rows))
  axes.bar(
    positions,
    [r["loop_us"] for r in rows],
    color="#9cc9ba",
    label="training loop (host overhead)",
  )
  axes.bar(
    positions,
    [r["bare_us"] for r in rows],
    color="#1b7f5c",
    label="compiled step alone",
  )
  for position, row in zip(positions, rows, strict=True):
    axes.annotate(
      f"host: {row['overhead_us']:,.1f} (target: < {row['target_us']:,.0f})",
      (position, row["loop_us"]),
      textcoords="offset points",
      xytext=(0, 4),
      ha="center",
      fontsize=8,
    )
  axes.set_xticks(
    positions, [f"steps per call: {r['steps_per_call']}" for r in rows]
  )
  axes.set(ylabel="microseconds per step", title=rows[0]["machine"])
  axes.title.set_fontsize(9)
  axes.margins(y=0.15)
  axes.legend(frameon=False)
  axes.spines[["top", "right"]].set_visible(False)
  return figure
