"""The table and the plot of `peers`."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure
from reporting import Column, Row

# A series of bars: label, color, and the rows of which it shows the best.
Series = tuple[str, str, Callable[[Row], bool]]
SERIES: tuple[Series, ...] = (
  ("fer_jax", "#1b7f5c", lambda row: row["library"] == "fer_jax"),
  (
    "PyTorch, float32",
    "#e8a06b",
    lambda row: row["library"] == "pytorch" and row["dtype"] == "float32",
  ),
  (
    "PyTorch, bfloat16",
    "#c2571a",
    lambda row: row["library"] == "pytorch" and row["dtype"] == "bfloat16",
  ),
  ("plain Flax", "#5b6bb5", lambda row: row["library"] == "flax"),
)


def _times(name: str) -> Callable[[Row], str]:
  """Returns a function that formats a ratio with its range."""

  def text(row: Row) -> str:
    if row[name] is None:
      return "-"
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:.2f} ({low:.2f}-{high:.2f})"

  return text


COLUMNS = (
  Column("model", 15, lambda row: row["model"], left=True),
  Column("work", 13, lambda row: row["work"], left=True),
  Column(
    "library",
    9,
    lambda row: row["library"] + "*" * row["best"],
    left=True,
  ),
  Column("variant", 22, lambda row: row["variant"], left=True),
  Column("dtype", 8, lambda row: row["dtype"], left=True),
  Column(
    "ms/step",
    24,
    lambda row: "{ms:.2f} ({ms_low:.2f}-{ms_high:.2f})".format(**row),
  ),
  Column("images/s", 9, lambda row: f"{row['images_per_second']:,.1f}"),
  Column("x torch fp32", 18, _times("times_float32_pytorch")),
  Column("x best torch", 18, _times("times_best_pytorch")),
  Column("x plain Flax", 20, _times("times_flax")),
  Column("1st step s", 10, lambda row: f"{row['first_step_s']:.1f}"),
  Column("memory MB", 9, lambda row: f"{row['peak_memory_bytes'] / 1e6:,.0f}"),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws the images/s of the best variants, one panel per kind of work."""
  names = list(dict.fromkeys(row["model"] for row in rows))
  series = [one for one in SERIES if any(map(one[2], rows))]
  torch = any(row["library"] == "pytorch" for row in rows)
  ratio = "times_best_pytorch" if torch else "times_flax"
  works = list(dict.fromkeys(row["work"] for row in rows))
  figure = Figure(
    figsize=(3.6 * len(works) + 2, 0.75 * len(names) + 2), layout="constrained"
  )
  panels = figure.subplots(1, len(works), sharey=True, squeeze=False)[0]
  for axes, work in zip(panels, works, strict=True):
    for i, name in enumerate(names):
      of = [r for r in rows if (r["model"], r["work"]) == (name, work)]
      _bars(axes, i, of, series, ratio)
    axes.set_title(_title(work, rows), fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.margins(x=0.22)
    axes.spines[["top", "right"]].set_visible(False)
  panels[0].set_yticks(range(len(names)), names)
  panels[0].invert_yaxis()
  handles: dict[str, Any] = {}
  for axes in panels:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      handles.setdefault(label, handle)
  figure.legend(
    handles.values(),
    list(handles),
    loc="outside lower center",
    ncols=len(series),
    frameon=False,
  )
  first = rows[0]
  versions = f"jax {first['jax']}, torch {first['torch'] or 'not installed'}"
  figure.suptitle(
    "Images per second, best variant of each library (in parentheses: relative"
    f" to {'the best PyTorch' if torch else 'plain Flax'})"
    f"\n{first['machine']}, {versions}, {first['image_size']} px,"
    f" {first['date']}",
    fontsize=9,
  )
  return figure


def _bars(
  axes: Any,
  position: int,
  rows: Sequence[Row],
  series: Sequence[Series],
  ratio: str,
) -> None:
  """Draws the bars of a model: the best row of each series."""
  height = 0.8 / len(series)
  for i, (label, color, belongs) in enumerate(series):
    best = min(filter(belongs, rows), key=lambda row: row["ms"], default=None)
    if best is None:
      continue
    rate = best["images_per_second"]
    low = rate * best["ms"] / best["ms_high"]
    high = rate * best["ms"] / best["ms_low"]
    at = position + (i - (len(series) - 1) / 2) * height
    axes.barh(
      at,
      rate,
      height,
      xerr=[[rate - low], [high - rate]],
      color=color,
      label=label,
      error_kw={"ecolor": "#444444", "elinewidth": 0.8},
    )
    times = best[ratio]
    axes.annotate(
      f"{rate:,.0f}" + ("" if times is None else f" ({times:.2f})"),
      (high, at),
      textcoords="offset points",
      xytext=(3, 0),
      va="center",
      fontsize=6.5,
    )


def _title(work: str, rows: Sequence[Row]) -> str:
  size = next(row["batch_size"] for row in rows if row["work"] == work)
  return f"{work.split()[0]}, batch {size}"
