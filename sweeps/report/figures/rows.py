"""Figures with one row per configuration or class: dots, bars and intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sweeps.report.figures.svg import FONT_SIZE, PALETTE, draw_svg, num_lines, wrapped

WIDTH = 560
LINE_HEIGHT = 15
MEASURED, NEGATIVE = PALETTE[0], PALETTE[1]
PAPER = PALETTE[1]

Interval = tuple[float, float]
Look = dict[str, Any]

_DOT: Look = {"marker": "o", "linestyle": "none", "markerfacecolor": MEASURED, "zorder": 3}
_DOT |= {"markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 6, "label": "seed"}
_DIAMOND: Look = {"marker": "D", "linestyle": "none", "markerfacecolor": "none", "zorder": 5}
_DIAMOND |= {"markeredgecolor": PAPER, "markeredgewidth": 1.8, "markersize": 8}
_INTERVAL: Look = {"color": "black", "elinewidth": 1.6, "capsize": 3, "zorder": 2.5}


@dataclass(frozen=True)
class DotRow:
    """One configuration: a value per seed, and the paper's number.

    mIoU in percent, or its difference to a baseline's in percentage points.
    """

    label: str
    values: Sequence[float]
    """One per seed, at least one."""
    paper: float | None = None
    interval: Interval | None = None
    """95 % interval around the mean over seeds; None for a single one."""


def cell_dots(cells: Sequence[DotRow]) -> str:
    """Draw a table's cells as rows: seeds as dots, mean, interval, the paper's number, as SVG.

    If the paper's numbers are so far from the measured ones that a common scale would hide the
    differences between rows, they get a panel of their own: if their gap is wider than both spans.
    """
    measured = [value for cell in cells for value in cell.values]
    printed = [cell.paper for cell in cells if cell.paper is not None] or measured
    gap = max(min(printed) - max(measured), min(measured) - max(printed))
    apart = gap > max(np.ptp(measured), np.ptp(printed))

    def draw(axes: Axes, paper: Axes) -> None:
        _dots(cells, axes, paper)
        axes.set_xlabel("pseudo-label mIoU (%)")
        if apart:
            paper.set_xlabel("paper (own scale)")
            paper.xaxis.set_major_locator(MaxNLocator(2))

    return _rows([cell.label for cell in cells], draw, apart=apart)


def forest(cells: Sequence[DotRow], *, baseline: str) -> str:
    """Draw differences to a baseline, paired by seed, with intervals and the paper's, as SVG."""

    def draw(axes: Axes, paper: Axes) -> None:
        _dots(cells, axes, paper)
        axes.axvline(0, color="black", linewidth=1.2)
        axes.set_xlabel(wrapped(f"difference to {baseline} (percentage points)", 60))

    return _rows([cell.label for cell in cells], draw)


def oscillation_bars(rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Draw the oscillation of the loss (percent of its mean) per configuration, as SVG.

    rows: (label, `lines.oscillation` of each seed). The bar is the mean over seeds, a dot a seed.
    """

    def draw(axes: Axes, _: Axes) -> None:
        for index, (_label, values) in enumerate(rows):
            percent = 100 * np.asarray(values)
            mean = axes.barh(index, percent.mean(), height=0.6, color=MEASURED, alpha=0.45)
            mean.set_label("mean over seeds")
            axes.plot(percent, [index] * len(percent), **_DOT)
        axes.set_xlim(left=0)
        axes.set_xlabel("oscillation of the loss (% of its mean, last half of training)")

    return _rows([label for label, _ in rows], draw)


def bars(
    rows: Sequence[tuple[str, float]], *, axis: str, intervals: Sequence[Interval] = ()
) -> str:
    """Draw a bar per (label, value), negative ones in another colour, as SVG.

    intervals: one per bar, or none.
    """

    def draw(axes: Axes, _: Axes) -> None:
        values = [value for _, value in rows]
        colours = [MEASURED if value >= 0 else NEGATIVE for value in values]
        axes.barh(range(len(rows)), values, height=0.62, color=colours, alpha=0.75)
        for row, interval in enumerate(intervals):
            _interval(axes, interval, row, fmt="none")
        axes.axvline(0, color="black", linewidth=1.2)
        axes.set_xlabel(axis)

    return _rows([label for label, _ in rows], draw)


def _rows(names: Sequence[str], draw: Callable[[Axes, Axes], None], *, apart: bool = False) -> str:
    """Return a chart with a labelled row per name, and a legend of what has a label, as SVG.

    draw: gets the axes, and those of the paper's numbers: the same, or if they are `apart`, a panel
    to the right.
    """
    labels = [wrapped(label) for label in names]

    def draw_rows(figure: Figure) -> None:
        ratios = (2, 1) if apart else (1,)
        panels = figure.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)[0]
        panels[0].set_yticks(range(len(labels)), labels, fontsize=FONT_SIZE - 1)
        panels[0].set_ylim(len(labels) - 0.4, -0.6)
        draw(panels[0], panels[-1])
        for panel in panels:
            panel.spines["left"].set_visible(False)
            panel.tick_params(axis="y", length=0)
            panel.grid(axis="x")
        found = [panel.get_legend_handles_labels() for panel in panels]
        handles = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
        if handles:
            look: Look = {
                "loc": "outside lower center",
                "ncols": len(handles),
                "handletextpad": 0.4,
            }
            figure.legend(handles.values(), handles, fontsize=FONT_SIZE - 1, **look)

    height = (10 + LINE_HEIGHT * max(map(num_lines, labels))) * max(len(labels), 2) + 85
    return draw_svg(draw_rows, width=WIDTH, height=height)


def _dots(cells: Sequence[DotRow], axes: Axes, paper: Axes) -> None:
    """Draw per row its seeds, from two on their mean with its interval, and the paper's number."""
    for row, cell in enumerate(cells):
        axes.plot(cell.values, [row] * len(cell.values), **_DOT)
        if cell.interval:
            mean: Look = {"fmt": "|", "markersize": 15, "markeredgewidth": 2.4}
            bar = _interval(axes, cell.interval, row, **mean)
            bar.set_label(wrapped("mean over seeds, 95 % interval", 17))
        if cell.paper is not None:
            paper.plot(cell.paper, row, **_DIAMOND, label="printed in the paper")


def _interval(axes: Axes, ends: Interval, row: int, **look: Any) -> ErrorbarContainer:
    """Draw an interval with end caps."""
    middle, half = sum(ends) / 2, (ends[1] - ends[0]) / 2
    return axes.errorbar(middle, row, xerr=half, **_INTERVAL | look)
