"""Masks and label maps, which are PNGs of class numbers; only this file reads and writes them.

Legend: H W image size, K classes. Values: 0 background, 1..K classes, 255 ignored.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin

from wsss.basics.files import whole_or_absent
from wsss.data.classes import CLASS_LIST, IGNORE_INDEX, voc_palette
from wsss.data.errors import DataError
from wsss.data.pictures.image import opened, orientation

_PALETTE = np.array(voc_palette()).reshape(256, 3)
_INDEX_OF = {tuple(colour): index for index, colour in enumerate(_PALETTE.tolist())}
"""VOC's colours -> the class number of each."""
_SPREAD = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow spreads grey of fewer bits over 0..255; class numbers are undone."""
REMEDY = "save class numbers as a palette or 8-bit grey PNG"
REPLACE, MAKE_AGAIN = "replace the file", "delete it and give the same command again"
"""Remedies of a damaged mask, and of a label map that was made here."""


def read_mask(path: Path, num_classes: int, *, remedy: str = REPLACE) -> NDArray[np.uint8]:
    """Return a mask: [H, W], 0 background, 1..K classes, 255 ignored.

    Accepted are class numbers (palette or grey, up to 16 bits) and RGB in VOC's colours. Raises
    DataError for a file that is missing, damaged or turned by an EXIF tag, for colours or values
    that are no class, and for a palette whose colours contradict its numbers. remedy: for a damaged
    file.
    """
    with opened(path, ("PNG",), remedy=remedy) as image:
        if orientation(image) != 1:
            raise DataError(f"{path}: turned by an EXIF tag; save the mask upright, without one")
        values = _values(path, image)
        used = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        wrong = used[(used > num_classes) & (used != IGNORE_INDEX)]
        if wrong.size:
            raise DataError(
                f"{path}: value {wrong[0]} is no class; allowed are 0..{num_classes} and "
                f"{IGNORE_INDEX}: correct the mask, or add the class to {CLASS_LIST}"
            )
        if image.mode == "P":
            _require_own_numbers(path, image, used, num_classes)
    return values.astype(np.uint8)


def require_size(path: Path, mask: NDArray[np.uint8], size: tuple[int, int]) -> None:
    """Raise DataError if a mask [H, W] does not have its image's `size` (width, height)."""
    if mask.shape != size[::-1]:
        raise DataError(
            f"{path}: {mask.shape[1]}x{mask.shape[0]} pixels, its image has {size[0]}x{size[1]}, "
            "turned as its EXIF tag says; save the mask at that size, turned alike"
        )


def write_label_png(path: Path, label: NDArray[np.uint8], *, source: str = "") -> None:
    """Write a label map [H, W] as an 8-bit PNG with VOC's palette, atomically.

    source: what it was made from (wsss/labels/sources.py), stored in the file unless "".
    """
    image = Image.fromarray(label)
    image.putpalette(voc_palette())
    text = PngImagePlugin.PngInfo()
    if source:
        text.add_text("source", source)
    with whole_or_absent(path) as partial:
        image.save(partial, format="PNG", pnginfo=text)


def _values(path: Path, image: ImageFile.ImageFile) -> NDArray[np.generic]:
    stored = str(image.tile[0].args) if image.tile else ""
    if image.mode in ("P", "L", "1", "I;16"):
        values = np.array(image)
        if image.mode == "1":
            return values.astype(np.uint8)
        return values // _SPREAD.get(stored, 1)
    if image.mode not in ("LA", "RGB", "RGBA") or stored.endswith(";16B"):
        raise DataError(f"{path}: mode {stored or image.mode}; {REMEDY}")
    if image.mode == "LA":
        return np.array(image)[..., 0]
    return _numbers_of_colours(path, np.array(image)[..., :3])


def _numbers_of_colours(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # [H, W, 3] -> [H, W]
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    used, inverse = np.unique(codes, return_inverse=True)
    numbers = []
    for code in used.tolist():
        colour = code >> 16, code >> 8 & 255, code & 255
        if colour not in _INDEX_OF:
            raise DataError(f"{path}: colour {colour} is not in VOC's palette; {REMEDY}")
        numbers.append(_INDEX_OF[colour])
    return np.array(numbers, np.uint8)[inverse].reshape(codes.shape)


def _require_own_numbers(
    path: Path, image: Image.Image, used: NDArray[np.intp], num_classes: int
) -> None:
    """Raise DataError for VOC's colours at other numbers: a program has reordered the palette.

    A palette with other colours says nothing about the numbers.
    """
    palette = image.getpalette() or []
    meant = {
        number: _INDEX_OF.get(tuple(palette[3 * number : 3 * number + 3]))
        for number in used.tolist()
        if number != IGNORE_INDEX
    }
    labels = {*range(num_classes + 1), IGNORE_INDEX}
    if len({*meant.values()} & labels) < len(meant):
        return
    for number, index in meant.items():
        if index not in (0, number):
            raise DataError(
                f"{path}: value {number} has the palette colour of {index}: the palette was "
                "renumbered; save the mask with VOC's palette, or as grey class numbers"
            )
