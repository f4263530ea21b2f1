"""Theme of the plots: colors, axes and legends for light and dark pages."""

import dataclasses
import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

_DPI = 150
_INKS = ("#000000", "#FFFFFF")


@dataclasses.dataclass(frozen=True)
class Theme:
  """Colors of a page, and the parts common to all plots.

  Blue and vermilion are distinguishable with every kind of color vision, and
  in gray (Okabe and Ito 2008, "Color Universal Design"); so are the colors of
  `series`, which are assigned to lines in order.
  """

  page: str
  ink: str
  muted: str
  grid: str
  blue: str
  vermilion: str
  gray: str
  ramp: tuple[str, ...]
  series: tuple[str, ...]

  @property
  def colormap(self) -> Colormap:
    """Colors of fractions, 0 to 1."""
    return LinearSegmentedColormap.from_list("fraction", self.ramp)

  def figure(self, width: float, height: float) -> Figure:
    """Returns an empty figure; sizes are in inches."""
    figure = Figure(
      figsize=(width, height),
      dpi=_DPI,
      facecolor=self.page,
      layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06),
    )
    FigureCanvasAgg(figure)
    return figure

  def style(self, axes: Axes, xgrid: bool, ygrid: bool) -> None:
    """Styles axes: light grid, no box, class names as plain text."""
    axes.set_facecolor(self.page)
    for axis, grid in ((axes.xaxis, xgrid), (axes.yaxis, ygrid)):
      axis.label.set(fontsize=9, color=self.ink)
      if grid:
        axis.grid(color=self.grid, linewidth=0.6)
    axes.tick_params(labelsize=8, colors=self.ink, length=2.5, width=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
      spine.set(
        visible=side in ("left", "bottom"), color=self.muted, linewidth=0.6
      )
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
      text.set_parse_math(False)  # "$" in a class name is not math

  def title(self, figure: Figure, text: str) -> None:
    """Writes the title of a figure, if any."""
    if text:
      figure.suptitle(text, fontsize=11, color=self.ink, parse_math=False)

  def legend(self, axes: Axes) -> None:
    """Adds a legend in one line above the axes."""
    axes.legend(
      loc="lower right",
      bbox_to_anchor=(1, 1),
      ncols=9,
      fontsize=8,
      columnspacing=1.4,
      handlelength=1.6,
      labelcolor=self.ink,
      frameon=False,
      borderaxespad=0.1,
      borderpad=0.2,
    )


_LIGHT = Theme(
  page="#FFFFFF",
  ink="#333333",
  muted="#6B6B6B",
  grid="#E3E3E3",
  blue="#0072B2",
  vermilion="#D55E00",
  gray="#A8A8A8",
  ramp=("#F4F7FA", "#8FC1DF", "#0072B2", "#00456F"),
  series=("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
_DARK = Theme(
  page="#14171A",
  ink="#E8E8E8",
  muted="#9299A1",
  grid="#30363D",
  blue="#4BA3DB",
  vermilion="#F0803C",
  gray="#6E767F",
  ramp=("#1D2228", "#124E73", "#2F8FCB", "#9AD4F5"),
  series=("#4BA3DB", "#F0803C", "#2FBF9A", "#E29BC4", "#F2BE4A", "#9AD4F5"),
)


def theme_of(dark: bool) -> Theme:
  """Returns the theme of a dark or of a light page."""
  return _DARK if dark else _LIGHT


def percent(fraction: float, _: object) -> str:
  """Formats the label of a tick.

  >>> percent(0.2, None), percent(0.625, None)
  ('20%', '62.5%')
  """
  return f"{100 * fraction:.6g}%"


def to_png(figure: Figure) -> bytes:
  """Returns the figure as a PNG, deterministically."""
  picture = io.BytesIO()
  FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
  return picture.getvalue()


def readable(background: tuple[float, ...]) -> str:
  """Returns black or white, whichever contrasts more with a color.

  >>> readable((0.0, 0.2, 0.4)), readable((0.9, 0.9, 1.0))
  ('#FFFFFF', '#000000')
  """
  return max(_INKS, key=lambda ink: contrast(to_rgb(ink), background))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
  """Returns the contrast of two colors, 1 to 21 (WCAG 2.2, contrast ratio).

  >>> round(contrast((0, 0, 0), (1, 1, 1)), 6)
  21.0
  """
  low, high = sorted((_luminance(one), _luminance(other)))
  return (high + 0.05) / (low + 0.05)


def _luminance(color: tuple[float, ...]) -> float:
  """Returns the relative luminance of an sRGB color, 0 to 1 (WCAG 2.2)."""
  red, green, blue = (
    c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    for c in color[:3]
  )
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
