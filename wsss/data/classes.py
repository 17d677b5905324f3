"""The class list, palette and label values of PASCAL VOC, and of custom data sets in its layout."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from wsss.basics.files import read_text
from wsss.basics.printable import quoted
from wsss.data.errors import DataError

VOC_CLASSES: tuple[str, ...] = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The 20 foreground classes; class k of a CAM is label k + 1 of a mask (label 0 is background)."""

IGNORE_INDEX = 255
"""Mask value of object borders and difficult regions; such pixels are never scored."""

RESERVED = {"background", "bg", "ignore", "void", "unlabeled", "unlabelled", "none", "nothing"}
"""Names, without '_', that other tools list among the classes but that are no classes here."""

CLASS_NAME = re.compile(r"\w[\w -]{0,79}")

CLASS_LIST = "classes.txt"
FOREIGN_LIST = re.compile(
    r"(class(es)?|categories|label(s|map)?|obj)([_-]?names)?\.(txt|names)", re.IGNORECASE
)
"""What labelme, CVAT and YOLO call their lists of classes; VOC itself has none."""
MAX_LIST_BYTES = 1 << 20
"""Of classes.txt; 254 names of 80 characters are far fewer."""

MAX_CLASSES = 254
"""Masks have 8 bits, where 0 is background and 255 is ignored."""


def voc_palette() -> list[int]:
    """Return VOC's colour palette, 256 x RGB, as the flat list of 768 values that PIL expects.

    Bits 0, 1, 2 of a label are bit 7 of red, green and blue, the next three bit 6, and so on (VOC
    development kit, VOCcolormap).
    """
    return [
        sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    ]


def class_name(text: str) -> str:
    """Return a class name as it is compared: accents joined with their letters, single spaces.

    macOS separates them in file names, and so in lists made of those.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def has_class_list(root: Path) -> bool:
    """Return whether there is a classes.txt, even as a broken link; else VOC's are assumed."""
    path = root / CLASS_LIST
    return path.exists() or path.is_symlink()


def read_class_list(root: Path) -> tuple[str, ...]:
    """Return the foreground class names of the data set at `root`, in label order.

    They come from `classes.txt` (one name per line, without background); without one, they are
    VOC's. Raises DataError as `require_class_names`, and if there is another tool's list
    instead.
    """
    if not has_class_list(root):
        names = sorted(path.name for path in root.glob("*.*") if path.is_file())
        if foreign := next(filter(FOREIGN_LIST.fullmatch, names), None):
            raise DataError(
                f"{root / CLASS_LIST}: missing, but there is {foreign}; write its names there, one "
                "per line in the order of the labels, without background (label 0)"
            )
        return VOC_CLASSES
    path = root / CLASS_LIST
    lines = read_text(path, MAX_LIST_BYTES, DataError).splitlines()
    names = [class_name(line) for line in lines if line.strip()]
    require_class_names(names, path)
    return tuple(names)


def is_reserved(name: str) -> bool:
    """Return whether a name is one of RESERVED in any spelling, also with a number before it."""
    return re.sub(r"[\W\d_]", "", name).casefold() in RESERVED


def require_class_names(names: Sequence[str], path: Path) -> None:
    """Raise DataError unless these are 1 to 254 different class names, without background.

    path: the file they come from. Names that differ only in case are probably one class.
    """
    if not names or len(names) > MAX_CLASSES:
        raise DataError(
            f"{path}: {len(names)} classes; write 1 to {MAX_CLASSES} names, one per line"
        )
    for name in names:
        if is_reserved(name):
            raise DataError(
                f"{path}: {quoted(name)} is no class, as background is always label 0 and ignored "
                f"pixels are {IGNORE_INDEX}; remove the line, label or folder: the first class is "
                "label 1"
            )
        # Many scripts write vowels as marks on letters, which are no \w.
        letters = (char for char in name if not unicodedata.category(char).startswith("M"))
        if not CLASS_NAME.fullmatch("".join(letters)):
            raise DataError(
                f"{path}: class name {quoted(name)} is not allowed; use letters, digits, spaces, "
                "'-' and '_', 80 at most"
            )
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            raise DataError(
                f"{path}: {quoted(seen[name.casefold()])} and {quoted(name)} differ at most in "
                "upper and lower case; keep one of them, or give two classes different names"
            )
        seen[name.casefold()] = name
