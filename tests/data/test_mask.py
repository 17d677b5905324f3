"""The reader of masks: kinds of files that test_fuzz_data.py does not write, and faults."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up.voc_tree import palette_mask
from PIL import Image
from test_image import exif, png

from wsss.data.classes import voc_palette
from wsss.data.errors import DataError
from wsss.data.pictures.mask import read_mask, require_size

VALUES = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)
RGB = np.array(voc_palette(), np.uint8).reshape(256, 3)


KINDS: dict[str, Callable[[Path], object]] = {
    "palette of other colours": lambda p: palette_mask(VALUES, [9, 9, 200] * 256).save(p),
    "grey of 4 bits": lambda p: p.write_bytes(png(4, 0, [b"\x01\x20", b"\x31\x00"], width=3)),
    "grey of 2 bits": lambda p: p.write_bytes(png(2, 0, [b"\x18", b"\xd0"], width=3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_class_numbers_are_read_from_every_kind_of_png(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    KINDS[kind](path)
    mask = read_mask(path, 3)
    assert mask.dtype == np.uint8
    assert mask.tolist() == VALUES.tolist()


def test_a_black_and_white_mask_is_background_and_the_first_class(tmp_path: Path) -> None:
    Image.fromarray(VALUES == 1).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", 1).tolist() == [[0, 1, 0], [0, 1, 0]]


SORTED = [*voc_palette()[9:12], *voc_palette()[:9]]
"""VOC's first colours, the last of them first: as if sorted by how often they occur."""
REFUSED: dict[str, tuple[Image.Image, str]] = {
    "renumbered": (palette_mask(VALUES, SORTED), "value 0 has the palette colour of 3"),
    "colour": (Image.new("RGB", (3, 2), (1, 1, 1)), r"colour \(1, 1, 1\) is not in VOC's palette"),
    "high": (Image.fromarray(VALUES.astype(np.uint16) + 300), "value 300 is no class"),
    "other class": (Image.fromarray(RGB[VALUES + 3]), "value 4 is no class; allowed are 0..3"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_contradicts_the_numbers_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    image, message = REFUSED[kind]
    image.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png: {message}"):
        read_mask(tmp_path / "a.png", 3)


def test_16_bits_of_colour_and_a_turned_mask_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(16, 2, [bytes(6)], width=1))
    with pytest.raises(DataError, match="mode RGB;16B; save class numbers"):
        read_mask(path, 3)
    Image.fromarray(VALUES).save(path, exif=exif(6))
    with pytest.raises(DataError, match="turned by an EXIF tag; save the mask upright"):
        read_mask(path, 3)
    with pytest.raises(DataError, match="3x2 pixels, its image has 2x3, turned as its EXIF tag"):
        require_size(path, VALUES, (2, 3))
