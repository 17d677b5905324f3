"""A table as two maps, measured and printed, each on its own colour scale.

Legend: R rows, C columns of the table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sweeps.report.figures.svg import FONT_SIZE, draw_svg, num_lines, wrapped

WIDTH = 600
CELL_HEIGHT = 40
LINE_HEIGHT = 16
LABEL_CHARACTERS = 16
BRIGHT = 0.45
"""Share of the colour scale from which black is easier to read than white (WCAG 2)."""

Map = NDArray[np.float64]
"""[R, C] mIoU in percent, nan where there is none."""


def heatmap(
    measured: Map,
    paper: Map,
    *,
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    noise: float | None,
) -> str:
    """Draw a table, measured and as printed in the paper, as SVG.

    rows, columns: their name and labels. noise: percentage points within which measured cells
    cannot be told apart, if known.

    Without any printed number there is only one panel. Measured cells within the noise of the best
    one get a dashed frame; the best number is bold. Colours span each panel's own values, from dark
    to yellow, so panels compare patterns, not levels.
    """
    near = within_noise(measured, noise)
    panels = [("measured", measured, "missing", near)]
    if not np.isnan(paper).all():
        panels.append(("printed in the paper", paper, "none", np.zeros_like(near)))
    row_labels, column_labels = (
        [wrapped(label, LABEL_CHARACTERS) for label in labels] for _, labels in (rows, columns)
    )

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(panels), squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=True):
            _draw_panel(axes, *panel)
            axes.set_xticks(range(len(column_labels)), column_labels)
            axes.set_xlabel(wrapped(columns[0]))
            axes.set_yticks(range(len(row_labels)), row_labels)
            axes.set_ylabel(wrapped(rows[0]))

    cell = max(CELL_HEIGHT, LINE_HEIGHT * max(map(num_lines, row_labels)) + 8)
    panel = cell * len(row_labels) + LINE_HEIGHT * (max(map(num_lines, column_labels)) - 1) + 100
    return draw_svg(draw, width=WIDTH, height=len(panels) * panel)


def within_noise(values: Map, noise: float | None) -> NDArray[np.bool_]:
    """Return which cells [R, C], other than the best, are at most `noise` below the best."""
    if noise is None or np.isnan(values).all():
        return np.zeros(values.shape, dtype=bool)
    best = np.nanmax(values)
    return (values >= best - noise) & (values < best)


def _draw_panel(
    axes: Axes, heading: str, values: Map, absent: str, framed: NDArray[np.bool_]
) -> None:
    """Draw one map. absent: word in a cell without a value."""
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.patch.set(facecolor="#e0e0e0", hatch="///", edgecolor="#c0c0c0")  # shows where none is
    present = values[~np.isnan(values)]
    low, high = (present.min(), present.max()) if len(present) else (0.0, 0.0)
    span = f"{low:.2f} to {high:.2f}, span {high - low:.2f}" if len(present) else "no value yet"
    axes.set_title(f"{heading}\n{span}", fontsize=FONT_SIZE)
    shares = (values - low) / (high - low) if high > low else values * 0 + 0.5
    columns, rows = (np.arange(size + 1) - 0.5 for size in reversed(values.shape))
    look: dict[str, Any] = {"cmap": "cividis", "edgecolors": "white", "linewidth": 2}
    axes.pcolormesh(columns, rows, np.ma.masked_invalid(shares), vmin=0, vmax=1, **look)
    axes.set_ylim(rows[-1], rows[0])
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if shares[row, column] < BRIGHT else "black"
        if framed[row, column]:
            frame = Rectangle((column - 0.42, row - 0.39), 0.84, 0.78, fill=False, edgecolor=ink)
            frame.set(linewidth=1.4, linestyle=(0, (3, 2)))
            axes.add_artist(frame)
        axes.text(
            column,
            row,
            absent if np.isnan(value) else f"{value:.2f}",
            color=ink,
            fontsize=FONT_SIZE,
            fontweight="bold" if value == high else "normal",
            ha="center",
            va="center",
            in_layout=False,  # it lies within the axes, so no room need be made for it
        )
