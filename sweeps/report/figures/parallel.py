"""Which settings go with which score: parallel coordinates, and bars of what each explains.

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

from sweeps.report.figures.rows import HEADROOM, LINE_HEIGHT, MEASURED, NEGATIVE
from sweeps.report.figures.svg import FONT_SIZE, INK, draw_svg, label_rows, num_lines, wrapped

WIDTH = 560
CHARACTER = 7
"""Width of one in the head of an axis, in pixels."""
NUM_TICKS = 5
"""Numbers on an axis of values that were drawn from a range."""


@dataclass(frozen=True)
class Setting:
    """One axis: a setting's value in each of n configurations."""

    name: str
    values: Sequence[float]
    labels: Sequence[str] = ()
    """What the values 0, 1, ... are called; empty for numbers on a scale."""
    log: bool = False


def parallel_coordinates(
    settings: Sequence[Setting], scores: Sequence[float], *, score: str, name: str, title: str
) -> str:
    """Draw a line per configuration through its settings to its score (percent mIoU), as SVG.

    Colours go by the score, the highest drawn last; the best line is the thickest.
    """
    axes_shown = [*settings, Setting(score, scores)]
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
            axes.axvline(at, color=INK, linewidth=1)
            _number(axes, at, setting)
        axes.set_xticks(range(len(axes_shown)), heads)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_yticks([])
        axes.set_xlim(-0.35, len(axes_shown) - 0.45)
        for spine in axes.spines.values():
            spine.set_visible(False)

    height = 260 + LINE_HEIGHT * max(map(num_lines, heads))
    return draw_svg(draw, name=name, title=title, width=WIDTH, height=height)


def explained_bars(shares: Sequence[tuple[str, float]], *, axis: str, name: str, title: str) -> str:
    """Draw a bar per setting, in percent of what `axis` names, negative ones apart, as SVG."""
    labels = [wrapped(label) for label, _ in shares]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        label_rows(axes, labels)
        for row, (_, share) in enumerate(shares):
            colour = MEASURED if share >= 0 else NEGATIVE
            axes.barh(row, 100 * share, height=0.6, color=colour, alpha=0.75)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel(axis)
        axes.grid(axis="x")

    height = (LINE_HEIGHT + 12) * max(len(labels), 2) + HEADROOM
    return draw_svg(draw, name=name, title=title, width=WIDTH, height=height)


def _head(name: str, width: float) -> str:
    """Return a setting's name in lines of this width, broken between its words."""
    room = max(8, int(width / CHARACTER))
    return wrapped(name.replace("_", " ") if len(name) > room and " " not in name else name, room)


def _places(setting: Setting) -> NDArray[np.float64]:
    """Return where the values [n] lie on their axis, from 0 to 1."""
    values = np.asarray(setting.values, dtype=np.float64)
    values = np.log(values) if setting.log else values
    span = np.ptp(values)
    return (values - values.min()) / span if span > 0 else np.full(len(values), 0.5)


def _number(axes: Axes, at: int, setting: Setting) -> None:
    """Write values along an axis: each if they are few, else some, evenly spaced."""
    values, places = np.asarray(setting.values, dtype=np.float64), _places(setting)
    kept = dict(sorted(zip(places.tolist(), values.tolist(), strict=True)))
    if not setting.labels and len(kept) > NUM_TICKS:
        wanted = np.linspace(0, 1, NUM_TICKS)
        known = np.array(list(kept))
        near = sorted({float(known[np.abs(known - place).argmin()]) for place in wanted})
        kept = {place: kept[place] for place in near}
    side = -1 if at == 0 else 1  # no line lies left of the first axis
    for place, value in kept.items():
        text = setting.labels[round(value)] if setting.labels else f"{value:.4g}"
        axes.annotate(
            text,
            (at, place),
            xytext=(4 * side, 0),
            textcoords="offset points",
            va="center",
            ha="left" if side > 0 else "right",
            fontsize=FONT_SIZE - 2,
        )
