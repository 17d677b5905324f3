"""Reads a data set in the layout of PASCAL VOC: splits, masks and image-level labels.

    root/JPEGImages/<id>.jpg                 root/ImageSets/Segmentation/<split>.txt
    root/Annotations/<id>.xml                root/classes.txt (custom class lists only)
    root/SegmentationClass/<id>.png          root/SegmentationClassAug/<id>.png (SBD's masks)

Image-level labels come from the XML; an image without one takes them from its mask, as the SBD part
of train_aug does, and each sample says which.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.data.classes import IGNORE_INDEX, read_class_list
from wsss.errors import ForeseenError

LabelSource = Literal["xml", "mask"]
IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    """A data set on disk. Nothing is read before it is asked for.

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

    def image_path(self, image_id: str) -> Path:
        """Return the image's path, without asking whether it exists."""
        return self.root / "JPEGImages" / f"{image_id}.jpg"

    def split_names(self) -> list[str]:
        """Return the names of all splits, sorted."""
        return sorted(path.stem for path in (self.root / "ImageSets/Segmentation").glob("*.txt"))

    def image_ids(self, split: str) -> list[str]:
        """Return the ids of a split in file order."""
        path = self.root / "ImageSets/Segmentation" / f"{split}.txt"
        if not path.is_file():
            raise DataError(
                f"{path}: no such split; there are: {', '.join(self.split_names()) or 'none'}"
            )
        try:
            ids = path.read_text(encoding="utf-8").split()
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8 text; write one image id a line") from None
        if not ids:
            raise DataError(f"{path}: the split is empty; write one image id a line")
        for image_id in ids:
            if not IMAGE_ID.fullmatch(image_id):
                raise DataError(
                    f"{path}: {image_id!r} is not an image id; use letters, digits, '.', '_', '-'"
                )
        if len(set(ids)) < len(ids):
            twice = next(image_id for image_id in ids if ids.count(image_id) > 1)
            raise DataError(f"{path}: {twice} is listed twice; keep it once")
        return ids

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

    def mask(self, image_id: str) -> NDArray[np.uint8]:
        """Return the mask: [H, W], 0 background, 1..K classes, 255 ignored."""
        path = self.mask_path(image_id)
        try:
            with Image.open(path) as image:
                if image.mode not in ("P", "L"):
                    raise DataError(
                        f"{path}: mode {image.mode}; masks are palette or 8-bit grey PNGs"
                    )
                mask = np.array(image)
        except (OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); replace it") from None
        wrong = [int(v) for v in np.unique(mask) if v > len(self.classes) and v != IGNORE_INDEX]
        if wrong:
            raise DataError(
                f"{path}: value {wrong[0]} is no class; allowed are 0..{len(self.classes)} and "
                f"{IGNORE_INDEX}"
            )
        return mask

    def image_size(self, image_id: str) -> tuple[int, int]:
        """Return (width, height) in pixels, from the file's header."""
        path = self.image_path(image_id)
        try:
            with Image.open(path) as image:
                return image.size
        except FileNotFoundError:
            raise DataError(f"{path}: missing; add the image or take it off its splits") from None
        except (OSError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); replace it") from None

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
            root = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise DataError(f"{path}: not well-formed XML ({error}); replace it") from None
        names = [node.findtext("name") for node in root.findall("object")]
        for name in names:
            if name not in self.classes:
                raise DataError(
                    f"{path}: unknown class {name!r}; add it to classes.txt or correct it "
                    f"(known: {', '.join(self.classes)})"
                )
        return tuple(sorted({self.classes.index(name) for name in names if name is not None}))


def labels_of_mask(mask: NDArray[np.uint8]) -> tuple[int, ...]:
    """Return the 0-based foreground classes of a mask [H, W], ascending."""
    return tuple(int(value) - 1 for value in np.unique(mask) if value not in (0, IGNORE_INDEX))


def label_vector(labels: Iterable[int], num_classes: int) -> NDArray[np.float32]:
    """Return image-level labels as a 0/1 vector [K]."""
    vector = np.zeros(num_classes, dtype=np.float32)
    vector[list(labels)] = 1
    return vector
