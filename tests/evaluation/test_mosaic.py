"""Where the pictures of a mosaic lie, in which colours, and that its words are drawn."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from wsss.evaluation.mosaic import Line, draw_mosaic

RED, GREEN, BLUE = (200, 0, 0), (0, 180, 0), (0, 0, 220)
WIDTH, HEIGHT = 168, 140
"""Pixels of a cell: 2.1 and 1.75 inches of 80 dots."""


def plain(colour: tuple[int, int, int], height: int = 30, width: int = 40) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def drawn(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def extent(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of the pixels of a colour, ends excluded."""
    rows, columns = np.nonzero((pixels == colour).all(-1))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def runs(marked: NDArray[np.bool_]) -> NDArray[np.int_]:
    """Return where runs of True begin."""
    return np.flatnonzero(np.diff(marked.astype(int), prepend=0) == 1)


def test_each_picture_lies_in_the_middle_of_its_cell_and_keeps_its_shape(tmp_path: Path) -> None:
    lines = [
        Line("a", (plain(RED), plain(GREEN, height=80, width=20))),
        Line("b", (None, plain(BLUE, height=9, width=90))),
    ]
    draw_mosaic(tmp_path / "m.png", lines, ["right"], smooth=[True, False])
    pixels = drawn(tmp_path / "m.png")
    assert pixels.shape[1] == 2 * WIDTH
    assert 2 * HEIGHT <= pixels.shape[0] <= 2 * HEIGHT + 10
    cells = {RED: (0, 0, 4 / 3), GREEN: (0, 1, 1 / 4), BLUE: (1, 1, 10)}
    for colour, (line, column, ratio) in cells.items():
        top, bottom, left, right = extent(pixels, colour)
        assert line * HEIGHT < top < bottom <= (line + 1) * HEIGHT + 3
        assert abs((left + right) / 2 - (column + 0.5) * WIDTH) <= 1
        assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.05)
        filled = max((right - left) / WIDTH, (bottom - top) / HEIGHT)
        assert filled > 0.75


def test_labels_keep_their_colours_and_photographs_are_blended(tmp_path: Path) -> None:
    edge = np.concatenate([plain(RED, width=20), plain(BLUE, width=20)], axis=1)
    draw_mosaic(tmp_path / "m.png", [Line("", (edge, edge))], [""], smooth=[True, False])
    pixels = drawn(tmp_path / "m.png")
    blended, kept = (pixels[70, start : start + WIDTH] for start in (0, WIDTH))
    assert {tuple(map(int, colour)) for colour in kept} == {RED, BLUE, (255, 255, 255)}
    assert len({tuple(map(int, colour)) for colour in blended}) > 3


def test_titles_stand_above_the_pictures_and_the_legend_below(tmp_path: Path) -> None:
    pictures = (plain(RED), plain(GREEN))
    lines = [Line("2007_000032\naeroplane $x_1", pictures)]
    draw_mosaic(tmp_path / "bare.png", [Line("", pictures)], [""], smooth=[True, False])
    entries = [Patch(facecolor=(0, 0, 1), label=f"class {number}") for number in range(8)]
    draw_mosaic(tmp_path / "full.png", lines, ["label"], smooth=[True, False], legend=entries)
    bare, full = drawn(tmp_path / "bare.png"), drawn(tmp_path / "full.png")
    top = extent(bare, RED)[0]
    assert (bare[:top] == 255).all()
    for column in (0, 1):
        assert (full[:top, column * WIDTH : (column + 1) * WIDTH] < 128).any()
    np.testing.assert_array_equal(full[top : HEIGHT - 2], bare[top : HEIGHT - 2])
    below = (full[len(bare) :] == (0, 0, 255)).all(-1)
    assert [len(runs(rows.any(0))) for rows in (below[:17], below[17:])] == [4, 4]  # four a row
