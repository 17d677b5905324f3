"""Figures with one row per configuration or class: dots, bars and intervals.

Legend: L labels (classes), n rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sweeps.report.figures.svg import (
    FONT_SIZE,
    INK,
    PALETTE,
    draw_svg,
    label_rows,
    num_lines,
    wrapped,
)

WIDTH = 560
LINE_HEIGHT = 15
MEASURED, NEGATIVE = PALETTE[0], PALETTE[1]
PAPER = PALETTE[1]


@dataclass(frozen=True)
class DotRow:
    """One configuration: a value per seed, and the paper's number.

    mIoU in percent, or its difference to a baseline's in percentage points.
    """

    label: str
    values: Sequence[float]
    """One per seed; empty if nothing is measured yet."""
    paper: float | None = None
    interval: tuple[float, float] | None = None
    """95 % interval of the mean over seeds, if there is one."""


def cell_dots(cells: Sequence[DotRow], *, name: str, title: str) -> str:
    """Draw a table's cells as rows: seeds as dots, mean, interval, the paper's number, as SVG.

    If the paper's numbers are so far from the measured ones that a common scale would hide the
    differences between rows, they get a panel of their own.
    """
    labels = [wrapped(cell.label) for cell in cells]
    papers = [cell.paper for cell in cells]
    measured = [value for cell in cells for value in cell.values]
    apart = not _share_scale(measured, [paper for paper in papers if paper is not None])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(
            1, 2 if apart else 1, sharey=True, squeeze=False, width_ratios=(2, 1) if apart else (1,)
        )[0]
        label_rows(panels[0], labels)
        for index, cell in enumerate(cells):
            _dots(panels[0], index, cell)
            if cell.paper is not None:
                panels[-1].plot(cell.paper, index, **_DIAMOND)
        panels[0].set_xlabel("pseudo-label mIoU (%)")
        panels[0].grid(axis="x")
        if apart:
            panels[1].set_xlabel("paper (own scale)")
            panels[1].xaxis.set_major_locator(MaxNLocator(2))
            panels[1].spines["left"].set_visible(False)
            panels[1].tick_params(axis="y", length=0)
            panels[1].grid(axis="x")
        _legend(figure, _dot_keys(cells))

    return draw_svg(draw, name=name, title=title, width=WIDTH, height=_height(labels))


def forest(cells: Sequence[DotRow], *, baseline: str, name: str, title: str) -> str:
    """Draw differences to a baseline, paired by seed, with intervals and the paper's, as SVG."""

    def draw(axes: Axes) -> None:
        for index, cell in enumerate(cells):
            _dots(axes, index, cell)
            if cell.paper is not None:
                axes.plot(cell.paper, index, **_DIAMOND)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel(wrapped(f"difference to {baseline} (percentage points)", 60))

    return _rows([cell.label for cell in cells], draw, _dot_keys(cells), name=name, title=title)


def oscillation_bars(rows: Sequence[tuple[str, Sequence[float]]], *, name: str, title: str) -> str:
    """Draw the oscillation of the loss (percent of its mean) per configuration, as SVG.

    rows: (label, `lines.oscillation` of each seed). The bar is the mean over seeds, a dot a seed.
    """

    def draw(axes: Axes) -> None:
        for index, (_, values) in enumerate(rows):
            percent = 100 * np.asarray(values, dtype=np.float64)
            percent = percent[np.isfinite(percent)]
            if len(percent) == 0:
                _missing(axes, index)
                continue
            axes.barh(index, percent.mean(), height=0.6, color=MEASURED, alpha=0.45)
            axes.plot(percent, [index] * len(percent), **_DOT)
        axes.set_xlim(left=0)
        axes.set_xlabel("oscillation of the loss (% of its mean, last half of training)")

    keys = [_key(_DOT, "seed"), _key(_BAR, "mean over seeds")]
    return _rows([label for label, _ in rows], draw, keys, name=name, title=title)


def per_class_differences(
    names: Sequence[str],
    difference: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    name: str,
    title: str,
) -> str:
    """Draw the difference in IoU per class [L], in percentage points, with intervals, as SVG.

    low, high: ends of the intervals [L]; nan where there is none. A class without a difference
    (nan) is marked.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in (difference, low, high)]

    def draw(axes: Axes) -> None:
        for index, (value, start, end) in enumerate(zip(*arrays, strict=True)):
            if np.isnan(value):
                _missing(axes, index, "no such pixels")
                continue
            colour = NEGATIVE if value < 0 else MEASURED
            axes.barh(index, value, height=0.62, color=colour, alpha=0.75)
            _interval(axes, index, start, end)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel("difference in IoU (percentage points)")

    return _rows(names, draw, [], name=name, title=title)


def bars(shares: Sequence[tuple[str, float]], *, axis: str, name: str, title: str) -> str:
    """Draw a bar per setting, negative ones in another colour, as SVG. shares: in [-1, 1]."""

    def draw(axes: Axes) -> None:
        for row, (_, share) in enumerate(shares):
            colour = MEASURED if share >= 0 else NEGATIVE
            axes.barh(row, 100 * share, height=0.6, color=colour, alpha=0.75)
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.set_xlabel(axis)

    return _rows([label for label, _ in shares], draw, [], name=name, title=title)


def _rows(
    names: Sequence[str], draw: Callable[[Axes], None], keys: list[Line2D], *, name: str, title: str
) -> str:
    """Return a chart with a labelled row per name, and a legend if it has keys, as SVG."""
    labels = [wrapped(label) for label in names]

    def draw_rows(figure: Figure) -> None:
        axes = figure.add_subplot()
        label_rows(axes, labels)
        draw(axes)
        axes.grid(axis="x")
        _legend(figure, keys)

    height = _height(labels) - (0 if keys else 20)
    return draw_svg(draw_rows, name=name, title=title, width=WIDTH, height=height)


_DOT: dict[str, Any] = {
    "marker": "o",
    "linestyle": "none",
    "markersize": 6,
    "markerfacecolor": MEASURED,
    "markeredgecolor": INK,
    "markeredgewidth": 0.7,
    "zorder": 3,
}
_BAR: dict[str, Any] = {
    "marker": "s",
    "linestyle": "none",
    "markersize": 10,
    "color": MEASURED,
    "alpha": 0.45,
}
_TICK: dict[str, Any] = {
    "marker": "|",
    "linestyle": "none",
    "markersize": 15,
    "markeredgewidth": 2.4,
    "color": INK,
    "zorder": 4,
}
_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "linestyle": "none",
    "markersize": 8,
    "markerfacecolor": "none",
    "markeredgecolor": PAPER,
    "markeredgewidth": 1.8,
    "zorder": 5,
}
_INTERVAL: dict[str, Any] = {
    "color": INK,
    "linewidth": 1.6,
    "marker": "|",
    "markersize": 6,
    "markeredgewidth": 1.2,
    "zorder": 2.5,
}


def _dots(axes: Axes, row: int, cell: DotRow) -> None:
    """Draw one row: the seeds, from two on their mean as an upright bar, and the interval."""
    if not cell.values:
        _missing(axes, row)
        return
    if cell.interval:
        _interval(axes, row, *cell.interval)
    axes.plot(cell.values, [row] * len(cell.values), **_DOT)
    if len(cell.values) > 1:
        axes.plot(float(np.mean(cell.values)), row, **_TICK)


def _dot_keys(cells: Sequence[DotRow]) -> list[Line2D]:
    """Return the legend entries for the marks in these rows."""
    keys = [_key(_DOT, "seed")]
    if any(len(cell.values) > 1 for cell in cells):
        keys.append(_key(_TICK, "mean over seeds"))
    if any(cell.interval for cell in cells):
        keys.append(_key(_INTERVAL, wrapped("95 % interval of the mean over seeds", 22)))
    if any(cell.paper is not None for cell in cells):
        keys.append(_key(_DIAMOND, "printed in the paper"))
    return keys


def _interval(axes: Axes, row: int, low: float, high: float) -> None:
    """Draw a line with end caps from low to high; nothing unless both are finite."""
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [row, row], **_INTERVAL)


def _missing(axes: Axes, row: int, word: str = "missing") -> None:
    """Write in the middle of a row that it has no value."""
    axes.text(
        0.5,
        row,
        word,
        transform=axes.get_yaxis_transform(),
        ha="center",
        va="center",
        fontsize=FONT_SIZE - 1,
        fontstyle="italic",
        alpha=0.75,
    )


def _share_scale(measured: Sequence[float], printed: Sequence[float]) -> bool:
    """Whether one axis can show both: their gap is at most the wider of their spans."""
    if not measured or not printed:
        return True
    gap = max(min(printed) - max(measured), min(measured) - max(printed))
    spans = (max(values) - min(values) for values in (measured, printed))
    return gap <= max(spans)


def _height(labels: list[str]) -> float:
    lines = max(map(num_lines, labels))
    return (10 + LINE_HEIGHT * lines) * max(len(labels), 2) + 85


def _key(style: dict[str, Any], label: str) -> Line2D:
    return Line2D([], [], **style, label=label)


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    if not handles:
        return
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=FONT_SIZE - 1,
        handletextpad=0.4,
        columnspacing=1.4,
    )
