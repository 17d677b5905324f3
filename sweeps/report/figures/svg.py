"""From a matplotlib figure to SVG text that can stand in an HTML page of any theme.

Figures are drawn at 72 dpi, so that a point is a CSS pixel. Text, axes and grid are drawn in a
sentinel colour which becomes `currentColor`: they take the page's text colour, light or dark.
"""

import re
import textwrap
import warnings
from collections.abc import Callable
from io import StringIO
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sweeps.report.words import greek
from wsss.basics.printable import printable

INK = "#010203"
"""The sentinel; never used as data colour, because it is replaced everywhere in the SVG."""

PALETTE = ("#1a80bb", "#d55e00", "#009e73", "#b8639a", "#b07a00", "#7c6fd0", "#808080")
"""Okabe and Ito's colours, darkened or lightened to a contrast of 3 on white and on #14171a."""

DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 1.5, 2))
"""So that lines can be told apart without their colour. Lengths in line widths."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

FONT_SIZE = 13.0
LEGEND_CHARACTERS = 70

_STYLE = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # part of matplotlib, so the layout is the same everywhere
    "font.size": FONT_SIZE,
    "grid.alpha": 0.18,
    "grid.color": INK,
    "hatch.color": INK,
    "legend.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "path.simplify_threshold": 1.0,  # pixels; a long, noisy line keeps its peaks
    "savefig.dpi": 72,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "wsss-sweeps",
    "text.color": INK,
    "text.parse_math": False,  # a label such as $x_ is text
    "xtick.color": INK,
    "ytick.color": INK,
}

_LONG_NUMBER = re.compile(r"\d+\.\d{3,}")
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def draw_svg(draw: Callable[[Figure], None], *, title: str, width: float, height: float) -> str:
    """Return what `draw` puts on an empty figure as one inline `<svg>` element.

    width, height: CSS pixels; a narrower page scales the figure down. title: unique in the page, as
    every id starts with it; read out by screen readers and shown on hovering, not drawn. Equal
    input gives equal text.
    """
    text = StringIO()
    with matplotlib.style.context(_STYLE, after_reset=True), warnings.catch_warnings():
        # The browser draws the text; matplotlib's font only serves to measure it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        draw(figure)
        FigureCanvasSVG(figure).print_svg(text, metadata=_NO_METADATA)  # savefig would draw twice
    return _inline(text.getvalue(), title=title, width=width)


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


def _inline(svg: str, *, title: str, width: float) -> str:
    """Rewrite matplotlib's SVG document as an element of an HTML page.

    Its style sheet, which would apply to the whole page, becomes attributes of the root; ids and
    references get the title as a prefix; prolog, comments and namespace prefixes are removed.
    """
    name = "figure-" + re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    root = ElementTree.fromstring(svg)
    view_box = root.attrib["viewBox"]
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}style", f"{_SVG}metadata"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.tail = None
        if element.tag != "text":
            element.text = None
        element.attrib = {
            "href" if key == _HREF else key: _attribute(key, value, name)
            for key, value in element.attrib.items()
        }
    title_element = ElementTree.Element("title")
    title_element.text = greek(printable(title))
    root.insert(0, title_element)
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": view_box,
        "role": "img",
        "aria-label": title_element.text,
        "style": f"width:{width:g}px;max-width:100%;height:auto",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> str:
    """Return an attribute's value with the page's text colour and the figure's name in ids."""
    if key == "id":
        return f"{name}-{value}"
    if key == "d":  # a path; a hundredth of a pixel is enough
        return _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value)
    if key == _HREF:
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    return value.replace("'DejaVu Sans'", "system-ui, sans-serif")
