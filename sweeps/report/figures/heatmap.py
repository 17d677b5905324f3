"""A table as two maps side by side, measured and printed, each on its own colour scale.

Legend: R rows, C columns of the table.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sweeps.report.figures.svg import FONT_SIZE, INK, draw_svg, num_lines, wrapped

WIDTH = 600
CELL_HEIGHT = 40
LINE_HEIGHT = 16
CHARACTER_WIDTH = 6.6
MAX_COLUMNS_BESIDE = 5
"""Panels with more columns are drawn one below the other."""
LABEL_CHARACTERS = 16


def heatmap(
    measured: NDArray[np.float64],
    paper: NDArray[np.float64],
    *,
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    noise: float | None,
    title: str,
) -> str:
    """Draw a table, measured and as printed in the paper, as SVG.

    measured, paper: [R, C] mIoU in percent, nan where there is none. rows, columns: their name and
    labels. noise: percentage points within which measured cells cannot be told apart, if known.

    Without any printed number there is only one panel. Measured cells within the noise of the best
    one get a dashed frame. Colours span each panel's own values, so panels compare patterns, not
    levels.
    """
    panels = [("measured", measured, "missing", noise)]
    if not np.isnan(paper).all():
        panels.append(("printed in the paper", paper, "none", None))
    (row_name, row_labels), (column_name, column_labels) = rows, columns
    beside = len(column_labels) <= MAX_COLUMNS_BESIDE
    layout = (1, len(panels)) if beside else (len(panels), 1)
    row_labels = [wrapped(label, LABEL_CHARACTERS) for label in row_labels]
    column_labels = [wrapped(label, LABEL_CHARACTERS) for label in column_labels]
    width = 0.75 * WIDTH if beside and len(panels) == 1 else WIDTH
    legend = _legend(measured, noise, round(width / CHARACTER_WIDTH))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(*layout, squeeze=False, sharey=True)
        for axes, panel in zip(grid.flat, panels, strict=True):
            _draw_panel(axes, *panel)
            axes.set_xticks(range(len(column_labels)), column_labels)
            axes.set_xlabel(wrapped(column_name))
        for axes in grid[:, 0]:
            axes.set_yticks(range(len(row_labels)), row_labels)
            axes.set_ylabel(wrapped(row_name))
        figure.supxlabel(legend, x=0.01, ha="left", fontsize=FONT_SIZE - 1)

    cell = max(CELL_HEIGHT, LINE_HEIGHT * max(map(num_lines, row_labels)) + 8)
    panel = cell * len(row_labels) + LINE_HEIGHT * (max(map(num_lines, column_labels)) - 1) + 100
    height = layout[0] * panel + LINE_HEIGHT * num_lines(legend)
    return draw_svg(draw, title=title, width=width, height=height)


def within_noise(values: NDArray[np.float64], noise: float | None) -> NDArray[np.bool_]:
    """Return which cells [R, C], other than the best, are at most `noise` below the best."""
    if noise is None or np.isnan(values).all():
        return np.zeros(values.shape, dtype=bool)
    best = np.nanmax(values)
    return (values >= best - noise) & (values < best)


def text_colour(background: tuple[float, float, float]) -> str:
    """Return black or white, whichever contrasts more with an sRGB colour in [0, 1] (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def _draw_panel(
    axes: Axes, heading: str, values: NDArray[np.float64], absent: str, noise: float | None
) -> None:
    """Draw one map [R, C]. absent: word in a cell without a value; noise: for frames."""
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    present = values[~np.isnan(values)]
    low, high = (present.min(), present.max()) if len(present) else (0.0, 0.0)
    span = f"{low:.2f} to {high:.2f}, span {high - low:.2f}" if len(present) else "no value yet"
    axes.set_title(f"{heading}\n{span}", fontsize=FONT_SIZE)
    near = within_noise(values, noise)
    for (row, column), value in np.ndenumerate(values):
        corner = (column - 0.48, row - 0.47)
        if np.isnan(value):
            grey = Rectangle(corner, 0.96, 0.94, facecolor="#808080", hatch="///", alpha=0.3)
            grey.set_linewidth(0)
            axes.add_artist(grey)
            _write(axes, row, column, absent, color=INK, fontsize=FONT_SIZE - 2)
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        red, green, blue, _ = matplotlib.colormaps["cividis"](float(share))
        ink = text_colour((red, green, blue))
        axes.add_artist(Rectangle(corner, 0.96, 0.94, facecolor=(red, green, blue)))
        weight = "bold" if value == high else "normal"
        _write(axes, row, column, f"{value:.2f}", color=ink, fontsize=FONT_SIZE, fontweight=weight)
        if near[row, column]:
            frame = Rectangle((column - 0.42, row - 0.39), 0.84, 0.78, fill=False, edgecolor=ink)
            frame.set(linewidth=1.4, linestyle=(0, (3, 2)))
            axes.add_artist(frame)


def _write(axes: Axes, row: int, column: int, text: str, **look: Any) -> None:
    """Write into a cell, within the axes, so that the layout need not make room for it."""
    axes.text(column, row, text, ha="center", va="center", in_layout=False, **look)


def _legend(measured: NDArray[np.float64], noise: float | None, characters: int) -> str:
    """Return what colours, bold numbers and dashed frames mean, wrapped at this width."""
    colours = "colours: dark is the lowest, yellow the highest of each map; bold: highest"
    frames = "no frames: the noise between seeds is not known"
    if noise is not None:
        count = int(within_noise(measured, noise).sum())
        others = max(int(np.isfinite(measured).sum()) - 1, 0)
        frames = (
            f"dashed frame: within the noise of {noise:.2f} of the highest measured cell "
            f"({count} of {others} others)"
        )
    return f"{wrapped(colours, characters)}\n{wrapped(frames, characters)}"
