"""Which settings go with which score: parallel coordinates.

Legend: n configurations, k settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sweeps.report.figures.rows import LINE_HEIGHT
from sweeps.report.figures.svg import FONT_SIZE, draw_svg, num_lines, wrapped

WIDTH = 560
CHARACTER = 7
"""Width of a character in the heading of an axis, in pixels."""
NUM_TICKS = 5
"""At most so many numbers on an axis of values from a range."""


@dataclass(frozen=True)
class Setting:
    """One axis: a setting's value in each of n configurations."""

    name: str
    values: Sequence[float]
    log: bool = False


def parallel_coordinates(settings: Sequence[Setting], scores: Sequence[float]) -> str:
    """Draw a line per configuration through its settings to its score (percent mIoU), as SVG.

    Lines are coloured by score; the best is the thickest and drawn last.
    """
    axes_shown = [*settings, Setting("mIoU (%)", scores)]
    places = np.array([_places(setting) for setting in axes_shown])  # [k + 1, n] in [0, 1]
    heads = [_head(setting.name, WIDTH // len(axes_shown)) for setting in axes_shown]
    colour_of = Normalize(min(scores), max(scores))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        order, colours = np.argsort(scores), matplotlib.colormaps["cividis"]
        for at in order:
            colour = colours(0.15 + 0.75 * float(colour_of(scores[at])))
            width = 2.6 if at == order[-1] else 1.2
            axes.plot(range(len(axes_shown)), places[:, at], color=colour, linewidth=width)
        for at, setting in enumerate(axes_shown):
            axes.axvline(at, color="black", linewidth=1)
            _number(axes, at, setting)
        axes.set_xticks(range(len(axes_shown)), heads)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_yticks([])
        axes.set_xlim(-0.35, len(axes_shown) - 0.45)
        axes.spines[:].set_visible(False)

    height = 260 + LINE_HEIGHT * max(map(num_lines, heads))
    return draw_svg(draw, width=WIDTH, height=height)


def _head(name: str, width: float) -> str:
    """Return a setting's name wrapped between its words. width: pixels."""
    room = max(8, int(width / CHARACTER))
    return wrapped(name.replace("_", " ") if len(name) > room and " " not in name else name, room)


def _places(setting: Setting) -> NDArray[np.float64]:
    """Return the positions of the values [n] on their axis, from 0 to 1."""
    values = np.asarray(setting.values, dtype=np.float64)
    values = np.log(values) if setting.log else values
    span = np.ptp(values)
    return (values - values.min()) / span if span > 0 else np.full(len(values), 0.5)


def _number(axes: Axes, at: int, setting: Setting) -> None:
    """Write the values along an axis; of many, a few that are about evenly spaced."""
    kept = dict(sorted(zip(_places(setting).tolist(), setting.values, strict=True)))
    if len(kept) > NUM_TICKS:
        wanted = np.linspace(0, 1, NUM_TICKS)
        kept = dict(min(kept.items(), key=lambda item: abs(item[0] - at)) for at in wanted)
    side = -1 if at == 0 else 1  # no line lies left of the first axis
    for place, value in kept.items():
        axes.annotate(
            f"{value:.4g}",
            (at, place),
            xytext=(4 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            fontsize=FONT_SIZE - 2,
        )
