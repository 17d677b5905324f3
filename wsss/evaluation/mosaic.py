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
    entries_a_row = max(1, int(CELL_INCHES[0] * len(smooth) / LEGEND_INCHES[0]))
    sizes = _sizes(len(lines), len(smooth), -(-len(legend) // entries_a_row), dots_per_inch)
    height, width = sizes.shape
    figure = Figure(figsize=(width / dots_per_inch, height / dots_per_inch))
    for number, line in enumerate(lines):
        _write(figure, sizes, line.title, 0, number, size=7)
    for column, title in enumerate(titles, 1):
        _write(figure, sizes, title, column, 0, size=8)
    if legend:
        figure.legend(
            handles=list(legend),
            loc="lower center",
            ncols=entries_a_row,
            fontsize=7,
            frameon=False,
            borderaxespad=0,
        )
    figure.figimage(np.asarray(_canvas(lines, smooth, sizes)))
    with whole_or_absent(path) as partial:
        figure.savefig(partial, dpi=dots_per_inch, format="png")


class _Sizes(NamedTuple):
    """Of a mosaic, in pixels."""

    width: int
    """Of a cell."""
    height: int
    above: int
    """Height of a title."""
    margin: int
    """Around a picture."""
    shape: tuple[int, int]
    """Height and width of all."""


def _sizes(num_lines: int, num_columns: int, legend_rows: int, dots_per_inch: int) -> _Sizes:
    width, height = (round(inches * dots_per_inch) for inches in CELL_INCHES)
    above, margin = (round(i * dots_per_inch) for i in (TITLE_INCHES, MARGIN_INCHES))
    below = round(LEGEND_INCHES[1] * legend_rows * dots_per_inch)
    shape = height * num_lines + margin + below, width * num_columns
    return _Sizes(width, height, above, margin, shape)


def _write(figure: Figure, sizes: _Sizes, text: str, column: int, line: int, *, size: int) -> None:
    """Write a title above a cell."""
    x, y = (column + 0.5) * sizes.width, line * sizes.height + sizes.above
    figure.text(
        x / sizes.shape[1],
        1 - y / sizes.shape[0],
        text,
        ha="center",
        va="bottom",
        size=size,
        parse_math=False,
    )


def _canvas(lines: Sequence[Line], smooth: Sequence[bool], sizes: _Sizes) -> Image.Image:
    """Return the pictures in their cells, without words."""
    width, height, above, margin, shape = sizes
    canvas = Image.new("RGB", shape[::-1], "white")
    box = width - 2 * margin, height - above - margin
    for number, line in enumerate(lines):
        for column, picture in enumerate(line.pictures):
            if picture is not None:
                fitted = _fit(picture, box, smooth=smooth[column])
                left = column * width + (width - fitted.width) // 2
                canvas.paste(fitted, (left, number * height + above + margin))
    return canvas


def _fit(picture: NDArray[np.uint8], box: tuple[int, int], *, smooth: bool) -> Image.Image:
    """Return a picture [H, W, 3] as large as fits into `box` (width, height)."""
    image = Image.fromarray(picture)
    scale = min(box[0] / image.width, box[1] / image.height)
    size = scaled_size(image.width, image.height, scale)
    return image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
