"""Figures with one row per configuration or class: dots, bars and intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from sweeps.evidence.seeds import Interval
from sweeps.report.figures.svg import FONT_SIZE, PALETTE, draw_svg, num_lines, wrapped

WIDTH = 560
LINE_HEIGHT = 15
MEASURED, NEGATIVE = PALETTE[0], PALETTE[1]
PAPER = PALETTE[1]

Look = dict[str, Any]

_DOT: Look = {"marker": "o", "linestyle": "none", "markerfacecolor": MEASURED, "zorder": 3}
_DOT |= {"markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 6, "label": "seed"}
_DIAMOND: Look = {"marker": "D", "linestyle": "none", "markerfacecolor": "none", "zorder": 5}
_DIAMOND |= {"markeredgecolor": PAPER, "markeredgewidth": 1.8, "markersize": 8}
_MEAN: Look = {"fmt": "|", "markersize": 15, "markeredgewidth": 2.4}
_INTERVAL: Look = {"color": "black", "elinewidth": 1.6, "capsize": 3, "zorder": 2.5}


@dataclass(frozen=True)
class DotRow:
    """One configuration."""

    label: str
    values: Sequence[float]
    """One per seed, at least one."""
    interval: Interval | None = None
    """95 % interval around the mean over seeds; None for a single one."""
    paper: float | None = None
    """The paper's difference, if there is one."""


def dots(rows: Sequence[DotRow], *, axis: str) -> str:
    """Draw each row's differences as dots, their mean with its interval, and the paper's.

    axis: what the differences are to, with their unit. Returns SVG with a line at 0.
    """

    def draw(axes: Axes) -> None:
        for at, row in enumerate(rows):
            axes.plot(row.values, [at] * len(row.values), **_DOT)
            if row.interval:
                bar = _interval(axes, row.interval, at, **_MEAN)
                bar.set_label(wrapped("mean over seeds, 95 % interval", 17))
            if row.paper is not None:
                axes.plot(row.paper, at, **_DIAMOND, label="printed in the paper")
        axes.axvline(0, color="black", linewidth=1.2)
        axes.set_xlabel(wrapped(axis, 60))

    return _rows([row.label for row in rows], draw)


def bars(
    rows: Sequence[tuple[str, float]], *, axis: str, intervals: Sequence[Interval] = ()
) -> str:
    """Draw a bar per (label, value), negative ones in another colour, as SVG.

    intervals: one per bar, or none.
    """

    def draw(axes: Axes) -> None:
        values = [value for _, value in rows]
        colours = [MEASURED if value >= 0 else NEGATIVE for value in values]
        axes.barh(range(len(rows)), values, height=0.62, color=colours, alpha=0.75)
        for row, interval in enumerate(intervals):
            _interval(axes, interval, row, fmt="none")
        axes.axvline(0, color="black", linewidth=1.2)
        axes.set_xlabel(axis)

    return _rows([label for label, _ in rows], draw)


def _rows(names: Sequence[str], draw: Callable[[Axes], None]) -> str:
    """Return a chart with a labelled row per name, and a legend of what has a label, as SVG."""
    labels = [wrapped(label) for label in names]

    def draw_rows(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_yticks(range(len(labels)), labels, fontsize=FONT_SIZE - 1)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        draw(axes)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        handles = {
            label: each for each, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(
                handles.values(),
                handles,
                fontsize=FONT_SIZE - 1,
                loc="outside lower center",
                ncols=len(handles),
                handletextpad=0.4,
            )

    height = (10 + LINE_HEIGHT * max(map(num_lines, labels))) * max(len(labels), 2) + 85
    return draw_svg(draw_rows, width=WIDTH, height=height)


def _interval(axes: Axes, ends: Interval, row: int, **look: Any) -> ErrorbarContainer:
    """Draw an interval with end caps."""
    middle, half = sum(ends) / 2, (ends[1] - ends[0]) / 2
    return axes.errorbar(middle, row, xerr=half, **_INTERVAL | look)
