"""The class list, palette and label values of PASCAL VOC, and of custom data sets in its layout."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from wsss.errors import ForeseenError
from wsss.files import read_text
from wsss.printable import quoted

VOC_CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The 20 foreground classes; class k of a CAM is label k + 1 of a mask (label 0 is background)."""

IGNORE_INDEX = 255
"""Mask value of object borders and difficult regions; such pixels are never scored."""

RESERVED = {"background", "bg", "ignore", "void", "unlabeled", "unlabelled", "none", "nothing"}
"""Names, without '_', that other tools list among the classes, and which are none of ours."""

CLASS_NAME = re.compile(r"\w[\w -]{0,79}")

NUMBERED = re.compile(r"\d+[\s:.,;=-]+\S")

CLASS_LIST = "classes.txt"
FOREIGN_LIST = re.compile(
    r"(class(es)?|categories|label(s|map)?|obj)([_-]?names)?\.(txt|names)", re.IGNORECASE
)
"""As labelme, CVAT and YOLO call their lists of classes. VOC's own data set has none."""
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


def has_class_list(root: Path) -> bool:
    """Return whether there is a classes.txt, if only a broken link; else VOC's are assumed."""
    path = root / CLASS_LIST
    return path.exists() or path.is_symlink()


def read_class_list(root: Path) -> tuple[str, ...]:
    """Return the foreground class names of the data set at `root`, in label order.

    A data set with a `classes.txt` (one name a line, background left out) uses it; any other
    is taken to be VOC. Raises ClassListError as `require_class_names`, and where another tool's
    list says that it is not VOC.
    """
    if not has_class_list(root):
        names = sorted(path.name for path in root.glob("*.*") if path.is_file())
        if foreign := next(filter(FOREIGN_LIST.fullmatch, names), None):
            raise ClassListError(
                f"{root / CLASS_LIST}: missing, but there is {foreign}; write its names there, one "
                "a line in the order of the labels, without background (label 0)"
            )
        return VOC_CLASSES
    path = root / CLASS_LIST
    lines = read_text(path, MAX_LIST_BYTES, ClassListError).splitlines()
    names = [" ".join(line.split()) for line in lines if line.strip()]
    require_class_names(names, path)
    return tuple(names)


def is_reserved(name: str) -> bool:
    """Return whether a name is one of RESERVED, in any spelling."""
    return re.sub(r"[\W_]", "", name).casefold() in RESERVED


def require_class_names(names: Sequence[str], path: Path) -> None:
    """Raise ClassListError, naming the file that they come from, for names that no data set has.

    1 to 254 of CLASS_NAME, without background. Those that differ in upper and lower case alone are
    one class that somebody has spelled in two ways.
    """
    if not names or len(names) > MAX_CLASSES:
        raise ClassListError(
            f"{path}: {len(names)} classes; write 1 to {MAX_CLASSES} names, one a line"
        )
    if all(NUMBERED.match(name) for name in names):
        raise ClassListError(
            f"{path}: {quoted(names[0])} is a number and a name; write the names alone, one a "
            "line, without background"
        )
    for name in names:
        if is_reserved(name):
            raise ClassListError(
                f"{path}: {quoted(name)} is no class, as background is label 0 of every data set "
                f"and what is ignored {IGNORE_INDEX}; remove the line: the first name is label 1"
            )
        if not CLASS_NAME.fullmatch(name):
            raise ClassListError(
                f"{path}: class name {quoted(name)} is not allowed; use letters, digits, spaces, "
                "'-' and '_', 80 at most"
            )
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ClassListError(
                f"{path}: {quoted(other)} and {quoted(name)} differ in upper and lower case alone; "
                "write one class in one way, or give two classes two names"
            )
    if len(seen) < len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise ClassListError(f"{path}: listed twice: {', '.join(twice)}; keep each name once")
