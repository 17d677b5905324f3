"""The class list, palette and label values of PASCAL VOC, and of custom data sets in its layout."""

import re
from pathlib import Path

from wsss.errors import ForeseenError
from wsss.printable import quoted

VOC_CLASSES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""The 20 foreground classes; class k of a CAM is label k + 1 of a mask (label 0 is background)."""

IGNORE_INDEX = 255
"""Mask value of object borders and difficult regions; such pixels are never scored."""

CLASS_NAME = re.compile(r"\w[\w -]{0,79}")

MAX_LIST_BYTES = 1 << 20
"""Of classes.txt; 254 names of 80 characters are far below."""

MAX_CLASSES = 254
"""Labels live in 8-bit masks, where 0 is background and 255 is ignored."""


class ClassListError(ForeseenError, ValueError):
    """A classes.txt that cannot be used; the message names the file, the rule and the remedy."""


def voc_palette() -> list[int]:
    """Return VOC's colour palette, 256 x RGB, as the flat list of 768 values that PIL expects.

    Bit b of a label's three low bits goes to bit 7 - b of red, green and blue in turn
    (VOC development kit, VOCcolormap).
    """
    palette = []
    for label in range(256):
        red = green = blue = 0
        rest = label
        for bit in range(7, -1, -1):
            red |= (rest & 1) << bit
            green |= (rest >> 1 & 1) << bit
            blue |= (rest >> 2 & 1) << bit
            rest >>= 3
        palette += [red, green, blue]
    return palette


def read_class_list(root: Path) -> tuple[str, ...]:
    """Return the foreground class names of the data set at `root`, in label order.

    A data set with a `classes.txt` (one name a line, background left out) uses it; any other
    is taken to be VOC. Raises ClassListError for an empty, duplicate or unusable name.
    """
    path = root / "classes.txt"
    if not path.exists() and not path.is_symlink():
        return VOC_CLASSES
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST_BYTES + 1)
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ClassListError(f"{path}: not UTF-8 text; write one class name a line") from None
    except OSError as error:
        raise ClassListError(f"{path}: {error.strerror}; write one class name a line") from None
    if len(content) > MAX_LIST_BYTES:
        raise ClassListError(f"{path}: over {MAX_LIST_BYTES:,} bytes; write one class name a line")
    names = [line.strip() for line in lines if line.strip()]
    if not names or len(names) > MAX_CLASSES:
        raise ClassListError(
            f"{path}: {len(names)} classes; write 1 to {MAX_CLASSES} names, one a line"
        )
    for name in names:
        if name == "background" or not CLASS_NAME.fullmatch(name):
            raise ClassListError(
                f"{path}: class name {quoted(name)} is not allowed; leave background out and use "
                "letters, digits, spaces, '-' and '_', 80 at most"
            )
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ClassListError(f"{path}: listed twice: {', '.join(duplicates)}; keep each name once")
    return tuple(names)
