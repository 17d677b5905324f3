"""What a data set in VOC's layout says without a picture: its classes, splits and image ids.

Apart from `voc.py`, so that a plan, which reads no more than this, starts without Pillow.
"""

import re
from collections import Counter
from pathlib import Path

from wsss.data.classes import read_class_list
from wsss.errors import ForeseenError
from wsss.printable import printable, quoted

IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Also of a split's name. A file system takes 255 bytes, our own files add an ending."""

MAX_LIST_BYTES = 16 << 20
"""Of a split; VOC's longest has 130 kB, a million ids of 12 characters are 13 MB."""


class DataError(ForeseenError, ValueError):
    """Data that cannot be used; the message names the file, the rule and the remedy."""


class VocLists:
    """The lists of a data set on disk. Nothing but the classes is read before it is asked for.

    Raises DataError from every method when a file is missing or breaks the layout's rules.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "JPEGImages").is_dir():
            raise DataError(
                f"{root}: no folder JPEGImages; give the folder that holds JPEGImages, ImageSets "
                "and SegmentationClass (of VOC: VOCdevkit/VOC2012)"
            )
        self.classes = read_class_list(root)

    def split_names(self) -> list[str]:
        """Return the names of all splits, sorted."""
        return sorted(path.stem for path in (self.root / "ImageSets/Segmentation").glob("*.txt"))

    def image_ids(self, split: str) -> list[str]:
        """Return the ids of a split in file order."""
        folder = self.root / "ImageSets/Segmentation"
        if not IMAGE_ID.fullmatch(split):
            raise DataError(
                f"{folder}: {quoted(split)} is no name of a split; use letters, digits, '.', '_', "
                "'-'"
            )
        path = folder / f"{split}.txt"
        if not path.is_file():
            names = printable(", ".join(self.split_names()))
            raise DataError(f"{path}: no such split; there are: {names or 'none'}")
        try:
            ids = read_bytes(path, MAX_LIST_BYTES).decode("utf-8").split()
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8 text; write one image id a line") from None
        if not ids:
            raise DataError(f"{path}: the split is empty; write one image id a line")
        for image_id in ids:
            if not IMAGE_ID.fullmatch(image_id):
                raise DataError(
                    f"{path}: {quoted(image_id)} is not an image id; use letters, digits, '.', "
                    "'_', '-', 200 at most"
                )
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise DataError(f"{path}: {twice} is listed twice; keep it once")
        return ids


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a file's content. Raises DataError if it cannot be read or is over `limit` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; make it readable") from None
    if len(content) > limit:
        raise DataError(f"{path}: over {limit:,} bytes; replace it")
    return content
