"""From a matplotlib figure to SVG text, which a page shows as an image on white.

Figures are drawn at 72 dpi, so that a point is a CSS pixel.
"""

import textwrap
import warnings
from collections.abc import Callable
from io import StringIO

import matplotlib.style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sweeps.report.words import greek
from wsss.basics.printable import printable

PALETTE = ("#1a80bb", "#d55e00", "#009e73", "#b8639a", "#b07a00", "#7c6fd0", "#808080")
"""Okabe and Ito's colours, some of them darkened to a contrast of 3 on white."""

DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 1.5, 2))
"""So that lines can be told apart without their colour. Lengths in line widths."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

FONT_SIZE = 13.0
LEGEND_CHARACTERS = 70

_STYLE = {
    "axes.formatter.useoffset": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 72,
    "font.family": "sans-serif",
    "font.sans-serif": "DejaVu Sans",  # part of matplotlib, so the layout is the same everywhere
    "font.size": FONT_SIZE,
    "grid.alpha": 0.18,
    "grid.color": "black",
    "legend.frameon": False,
    "path.simplify_threshold": 1.0,  # pixels; a long, noisy line keeps its peaks
    "svg.fonttype": "none",
    "svg.hashsalt": "wsss-sweeps",
    "text.parse_math": False,  # a label such as $x_ is text
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def draw_svg(draw: Callable[[Figure], None], *, width: float, height: float) -> str:
    """Return what `draw` puts on an empty figure as SVG. Equal input gives equal text.

    width, height: CSS pixels; a narrower page scales the figure down.
    """
    text = StringIO()
    with matplotlib.style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        # The browser draws the text; matplotlib's font only serves to measure it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        draw(figure)
        FigureCanvasSVG(figure).print_svg(text, metadata=_NO_METADATA)  # savefig draws twice
    return text.getvalue()


def wrapped(label: str, width: int = 32) -> str:
    """Return a label in at most four lines of `width` characters, cut with … if longer."""
    lines = textwrap.wrap(greek(printable(label)), width, max_lines=4, placeholder=" …")
    return "\n".join(lines) or " "


def num_lines(label: str) -> int:
    """Return how many lines a wrapped label has."""
    return label.count("\n") + 1


def line_style(index: int) -> tuple[str, tuple[float, ...]]:
    """Return colour and dashes of a line; the first 28 pairs are all different."""
    return PALETTE[index % len(PALETTE)], DASHES[index % len(DASHES)]
