"""A table as two maps side by side, measured and printed, each on its own colour scale.

Legend: R rows, C columns of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Map:
    """A table's mIoU in percent."""

    measured: NDArray[np.float64]
    """[R, C], nan where nothing is measured."""
    paper: NDArray[np.float64]
    """[R, C], nan where nothing is printed."""
    row_labels: Sequence[str]
    column_labels: Sequence[str]
    row_name: str
    column_name: str
    noise: float | None
    """Percentage points within which measured cells cannot be told apart; None: not known."""


def heatmap(table: Map, *, name: str, title: str) -> str:
    """Draw a table, measured and as printed in the paper, as SVG.

    Without any printed number there is only one panel. Measured cells within the noise of the best
    one get a dashed frame. Colours span each panel's own values, so panels compare patterns, not
    levels.
    """
    panels = [("measured", table.measured, "missing", table.noise)]
    if not np.isnan(table.paper).all():
        panels.append(("printed in the paper", table.paper, "none", None))
    beside = len(table.column_labels) <= MAX_COLUMNS_BESIDE
    layout = (1, len(panels)) if beside else (len(panels), 1)
    rows = [wrapped(label, LABEL_CHARACTERS) for label in table.row_labels]
    columns = [wrapped(label, LABEL_CHARACTERS) for label in table.column_labels]
    width = 0.75 * WIDTH if beside and len(panels) == 1 else WIDTH
    legend = _legend(table.measured, table.noise, round(width / CHARACTER_WIDTH))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(*layout, squeeze=False).flat
        for axes, panel in zip(grid, panels, strict=True):
            _draw_panel(axes, *panel)
            axes.set_xticks(range(len(columns)), columns)
            axes.set_xlabel(wrapped(table.column_name))
            if panel is panels[0] or not beside:
                axes.set_yticks(range(len(rows)), rows)
                axes.set_ylabel(wrapped(table.row_name))
            else:
                axes.set_yticks([])
        figure.supxlabel(legend, x=0.01, ha="left", fontsize=FONT_SIZE - 1)

    return draw_svg(
        draw,
        name=name,
        title=title,
        width=width,
        height=layout[0] * _panel_height(rows, columns) + LINE_HEIGHT * num_lines(legend),
    )


def _panel_height(rows: list[str], columns: list[str]) -> float:
    """Return the height of cells that hold the row labels, with heading and column labels."""
    cell = max(CELL_HEIGHT, LINE_HEIGHT * max(map(num_lines, rows)) + 8)
    return cell * len(rows) + LINE_HEIGHT * (max(map(num_lines, columns)) - 1) + 100


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
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, values.shape[1] - 0.5)
    axes.set_ylim(values.shape[0] - 0.5, -0.5)
    present = values[~np.isnan(values)]
    low, high = (present.min(), present.max()) if len(present) else (0.0, 0.0)
    span = f"{low:.2f} to {high:.2f}, span {high - low:.2f}" if len(present) else "no value yet"
    axes.set_title(f"{heading}\n{span}", fontsize=FONT_SIZE)
    near, colours = within_noise(values, noise), matplotlib.colormaps["cividis"]
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            _absent_cell(axes, row, column, absent)
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        red, green, blue, _ = colours(float(share))
        ink = text_colour((red, green, blue))
        axes.add_artist(  # as add_patch, which would also look for new limits of the axes
            Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, facecolor=(red, green, blue))
        )
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            color=ink,
            fontsize=FONT_SIZE,
            fontweight="bold" if value == high else "normal",
            in_layout=False,  # it lies within the axes
        )
        if near[row, column]:
            _dashed_frame(axes, row, column, ink)


def _dashed_frame(axes: Axes, row: int, column: int, colour: str) -> None:
    """Frame a cell that cannot be told from the best one."""
    axes.add_patch(
        Rectangle(
            (column - 0.42, row - 0.39),
            0.84,
            0.78,
            facecolor="none",
            edgecolor=colour,
            linewidth=1.4,
            linestyle=(0, (3, 2)),
        )
    )


def _absent_cell(axes: Axes, row: int, column: int, word: str) -> None:
    """Draw a hatched grey cell with a word that says why there is no number."""
    box = ((column - 0.48, row - 0.47), 0.96, 0.94)
    axes.add_patch(Rectangle(*box, facecolor="#808080", alpha=0.15))
    axes.add_patch(Rectangle(*box, facecolor="none", hatch="///", alpha=0.4, linewidth=0))
    axes.text(column, row, word, ha="center", va="center", color=INK, fontsize=FONT_SIZE - 2)


def _legend(measured: NDArray[np.float64], noise: float | None, characters: int) -> str:
    """Return what colours, bold numbers and dashed frames mean, wrapped at this width."""
    colours = "colours: dark is the lowest, yellow the highest of each map; bold: highest"
    if noise is None:
        frames = "no frames: the noise between seeds is not known"
    else:
        count = int(within_noise(measured, noise).sum())
        others = max(int(np.isfinite(measured).sum()) - 1, 0)
        frames = (
            f"dashed frame: within the noise of {noise:.2f} of the highest measured cell "
            f"({count} of {others} others)"
        )
    return f"{wrapped(colours, characters)}\n{wrapped(frames, characters)}"
