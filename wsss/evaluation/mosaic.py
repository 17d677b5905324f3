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
    width, height = (round(inches * dots_per_inch) for inches in CELL_INCHES)
    above, margin = (round(i * dots_per_inch) for i in (TITLE_INCHES, MARGIN_INCHES))
    entries_a_row = max(1, int(CELL_INCHES[0] * len(smooth) / LEGEND_INCHES[0]))
    below = round(LEGEND_INCHES[1] * -(-len(legend) // entries_a_row) * dots_per_inch)
    shape = height * len(lines) + margin + below, width * len(smooth)
    canvas = Image.new("RGB", shape[::-1], "white")
    figure = Figure(figsize=(shape[1] / dots_per_inch, shape[0] / dots_per_inch))

    def write(text: str, column: int, line: int, size: int) -> None:
        x, y = (column + 0.5) * width, line * height + above
        figure.text(
            x / shape[1],
            1 - y / shape[0],
            text,
            ha="center",
            va="bottom",
            size=size,
            parse_math=False,
        )

    box = width - 2 * margin, height - above - margin
    for number, (title, pictures) in enumerate(lines):
        write(title, 0, number, 7)
        for column, picture in enumerate(pictures):
            if picture is not None:
                fitted = _fit(picture, box, smooth=smooth[column])
                left = column * width + (width - fitted.width) // 2
                canvas.paste(fitted, (left, number * height + above + margin))
    for column, title in enumerate(titles, 1):
        write(title, column, 0, 8)
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


def _fit(picture: NDArray[np.uint8], box: tuple[int, int], *, smooth: bool) -> Image.Image:
    """Return a picture [H, W, 3] as large as fits into `box` (width, height)."""
    image = Image.fromarray(picture)
    scale = min(box[0] / image.width, box[1] / image.height)
    size = scaled_size(image.width, image.height, scale)
    return image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
