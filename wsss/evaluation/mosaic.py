"""Lines of pictures under column titles, in one image file, for galleries.

Pictures are put together as pixels, and matplotlib draws only the words: with axes for each picture
it would take three times as long, at the end of every trial.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from wsss.basics.files import whole_or_absent
from wsss.data.loading.crops import scaled_size

CELL_INCHES = (2.1, 1.75)
"""Width and height of a cell: a picture with its title."""
TITLE_INCHES = 0.31
MARGIN_INCHES = 0.04
"""Around a picture."""
LEGEND_INCHES = (1.05, 0.22)
"""Width and height of one entry of the legend."""


class Line(NamedTuple):
    """The pictures of one image."""

    title: str
    """Above the first picture; two lines at most."""
    pictures: Sequence[NDArray[np.uint8] | None]
    """[H, W, 3] each, of any size; None leaves the cell empty."""


def draw_mosaic(
    path: Path,
    lines: Sequence[Line],
    titles: Sequence[str],
    *,
    smooth: Sequence[bool],
    legend: Sequence[Patch] = (),
    dots_per_inch: int = 80,
) -> None:
    """Draw the lines one below the other, every picture as large as its cell allows.

    titles: of the columns from the second one on. smooth: for each column, whether resizing may
    blend pixels (photographs) or must keep their colours (label maps). legend: drawn below.
    """
    width, height = (round(inches * dots_per_inch) for inches in CELL_INCHES)
    above = round(TITLE_INCHES * dots_per_inch)
    entries_a_row = max(1, int(CELL_INCHES[0] * len(smooth) / LEGEND_INCHES[0]))
    below = round(LEGEND_INCHES[1] * -(-len(legend) // entries_a_row) * dots_per_inch)
    margin = round(MARGIN_INCHES * dots_per_inch)
    canvas = Image.new("RGB", (width * len(smooth), height * len(lines) + margin + below), "white")
    for number, line in enumerate(lines):
        for column, picture in enumerate(line.pictures):
            if picture is not None:
                left, top = column * width + margin, number * height + above + margin
                box = (left, top, (column + 1) * width - margin, (number + 1) * height)
                _paste(canvas, picture, box, smooth=smooth[column])
    figure = Figure(figsize=(canvas.width / dots_per_inch, canvas.height / dots_per_inch))
    texts = [(0, number, line.title, 7) for number, line in enumerate(lines)]
    texts += [(column, 0, title, 8) for column, title in enumerate(titles, 1)]
    for column, number, text, size in texts:
        x, y = (column + 0.5) / len(smooth), 1 - (number * height + above) / canvas.height
        figure.text(x, y, text, ha="center", va="bottom", size=size, parse_math=False)
    if legend:
        figure.legend(
            handles=list(legend),
            loc="lower center",
            ncols=entries_a_row,
            fontsize=7,
            frameon=False,
            borderaxespad=0,
        )
    figure.figimage(np.asarray(canvas))
    with whole_or_absent(path) as partial:
        figure.savefig(partial, dpi=dots_per_inch, format="png")


def _paste(
    canvas: Image.Image, picture: NDArray[np.uint8], box: tuple[int, int, int, int], *, smooth: bool
) -> None:
    """Paste a picture [H, W, 3] as large as fits into a box, in the middle of its upper edge."""
    left, top, right, bottom = box
    image = Image.fromarray(picture)
    scale = min((right - left) / image.width, (bottom - top) / image.height)
    size = scaled_size(image.width, image.height, scale)
    fitted = image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    canvas.paste(fitted, (left + (right - left - fitted.width) // 2, top))
