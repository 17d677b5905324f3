"""Reads a data set in the layout of PASCAL VOC: classes, splits, masks and image-level labels.

    root/JPEGImages/<id>.jpg                 root/ImageSets/Segmentation/<split>.txt
    root/Annotations/<id>.xml                root/classes.txt (custom class lists only)
    root/SegmentationClass/<id>.png          root/SegmentationClassAug/<id>.png (SBD's masks)

Image-level labels come from the XML; an image without one takes them from its mask, as the SBD part
of train_aug does, and each sample says which. NumPy and Pillow are imported where pixels are read:
a plan reads lists only, and starts fast.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from xml.etree import ElementTree

from wsss.data.classes import IGNORE_INDEX, read_class_list
from wsss.errors import ForeseenError
from wsss.printable import printable, quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Also of a split's name. A file system takes 255 bytes, our own files add an ending."""

MAX_LIST_BYTES = 16 << 20
"""Of a split; VOC's longest has 130 kB, a million ids of 12 characters are 13 MB."""
LabelSource = Literal["xml", "mask"]
MAX_XML_BYTES = 4 << 20
"""Of one annotation; VOC's longest has 12 kB."""


class DataError(ForeseenError, ValueError):
    """Data that cannot be used; the message names the file, the rule and the remedy."""


class Sample(NamedTuple):
    """One image: where it lies and which classes it holds."""

    image_id: str
    image_path: Path
    labels: tuple[int, ...]
    """Foreground class indices, 0-based (aeroplane is 0), ascending."""
    label_source: LabelSource


class VocDataset:
    """A data set on disk: its lists, pictures, masks and labels; only the classes are read at once.

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

    def image_path(self, image_id: str) -> Path:
        """Return the image's path, without asking whether it exists."""
        return self.root / "JPEGImages" / f"{image_id}.jpg"

    def mask_path(self, image_id: str) -> Path:
        """Return the path of VOC's own mask, or of SBD's where VOC has none."""
        paths = [
            self.root / folder / f"{image_id}.png"
            for folder in ("SegmentationClass", "SegmentationClassAug")
        ]
        for path in paths:
            if path.is_file():
                return path
        raise DataError(f"{paths[0]}: no mask here, nor in SegmentationClassAug; add one")

    def mask(self, image_id: str) -> "NDArray[np.uint8]":
        """Return the mask: [H, W], 0 background, 1..K classes, 255 ignored."""
        import numpy as np
        from PIL import Image

        from wsss.data.image import BROKEN_IMAGE

        path = self.mask_path(image_id)
        try:
            with Image.open(path, formats=("PNG",)) as image:
                mode = image.mode
                mask = np.array(image)
        except BROKEN_IMAGE as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); replace it") from None
        if mode not in ("P", "L"):
            raise DataError(f"{path}: mode {mode}; masks are palette or 8-bit grey PNGs")
        wrong = [int(v) for v in np.unique(mask) if v > len(self.classes) and v != IGNORE_INDEX]
        if wrong:
            raise DataError(
                f"{path}: value {wrong[0]} is no class; allowed are 0..{len(self.classes)} and "
                f"{IGNORE_INDEX}"
            )
        return mask

    def image_size(self, image_id: str) -> tuple[int, int]:
        """Return (width, height) in pixels, upright, from the file's header."""
        from wsss.data.image import image_size

        return image_size(self.image_path(image_id))

    def sample(self, image_id: str) -> Sample:
        """Return an image with its image-level labels."""
        annotation = self.root / "Annotations" / f"{image_id}.xml"
        source: LabelSource = "xml" if annotation.is_file() else "mask"
        labels = (
            self._labels_from_xml(annotation)
            if source == "xml"
            else labels_of_mask(self.mask(image_id))
        )
        if not labels:
            raise DataError(
                f"{annotation if source == 'xml' else self.mask_path(image_id)}: no class present; "
                "an image needs at least one"
            )
        return Sample(image_id, self.image_path(image_id), labels, source)

    def samples(self, split: str) -> list[Sample]:
        """Return a split's images with their image-level labels, in file order."""
        return [self.sample(image_id) for image_id in self.image_ids(split)]

    def _labels_from_xml(self, path: Path) -> tuple[int, ...]:
        try:
            parser = ElementTree.XMLParser(target=_PlainTree())
            root = ElementTree.fromstring(read_bytes(path, MAX_XML_BYTES), parser)
        except DataError:
            raise
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise DataError(f"{path}: not well-formed XML ({error}); replace it") from None
        names = [node.findtext("name") for node in root.findall("object")]
        for name in names:
            if name not in self.classes:
                raise DataError(
                    f"{path}: unknown class {quoted(name)}; add it to classes.txt or correct it "
                    f"(known: {', '.join(self.classes)})"
                )
        return tuple(sorted({self.classes.index(name) for name in names if name is not None}))


class _PlainTree(ElementTree.TreeBuilder):
    """Builds a tree without document type, whose entities can stand for gigabytes or for files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuse it: VOC's annotations have none."""
        raise ValueError("a document type (<!DOCTYPE>) is refused")


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


def labels_of_mask(mask: "NDArray[np.uint8]") -> tuple[int, ...]:
    """Return the 0-based foreground classes of a mask [H, W], ascending."""
    import numpy as np

    return tuple(int(value) - 1 for value in np.unique(mask) if value not in (0, IGNORE_INDEX))


def label_vector(labels: Iterable[int], num_classes: int) -> "NDArray[np.float32]":
    """Return image-level labels as a 0/1 vector [K]."""
    import numpy as np

    vector = np.zeros(num_classes, dtype=np.float32)
    vector[list(labels)] = 1
    return vector
