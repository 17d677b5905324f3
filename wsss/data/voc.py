"""Reads a data set in the layout of PASCAL VOC: classes, splits, masks and image-level labels.

    root/JPEGImages/<id>.jpg                 root/ImageSets/Segmentation/<split>.txt
    root/Annotations/<id>.xml                root/classes.txt (custom class lists only)
    root/SegmentationClass/<id>.png          root/SegmentationClassAug/<id>.png (SBD's masks)

Other endings are accepted (.JPG, .jpeg, .png); macOS's ._* files are ignored. Image-level labels
come from the XML, or from the mask of an image without one, as in the SBD part of train_aug. NumPy
and Pillow are imported where pixels are read: a plan only reads lists, and starts fast.
"""

import os
import re
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from wsss.basics.files import read_bytes, read_text, refuse_pipe, what_is_there
from wsss.basics.printable import printable, quoted
from wsss.data.classes import IGNORE_INDEX, class_name, has_class_list, read_class_list
from wsss.data.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IMAGE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""Also of a split's name. A file name may have 255 bytes, and our own files add an ending."""

MAX_LIST_BYTES = 16 << 20
"""Of a split; VOC's longest has 130 kB, a million ids of 12 characters have 13 MB."""
ENDINGS = {
    "JPEGImages": (".jpg", ".jpeg", ".png", ".webp", ".bmp"),
    "Annotations": (".xml",),
    "SegmentationClass": (".png",),
    "SegmentationClassAug": (".png",),
    "ImageSets/Segmentation": (".txt",),
}
"""Folder -> endings of its files in lower case, VOC's own first."""
PICTURE_FOLDER = re.compile(r"^(?:.*/)?JPEGImages/")
MASK_PATH = re.compile(r"(?:.*/)?SegmentationClass(?:Aug)?/([^/]+)\.png", re.IGNORECASE)
"""PSA's and IRN's lists have lines such as `/JPEGImages/x.jpg /SegmentationClass/x.png`."""
MAX_XML_BYTES = 4 << 20
"""Of one annotation; VOC's longest has 12 kB."""


class Sample(NamedTuple):
    """One image: its path and its classes."""

    image_id: str
    image_path: Path
    labels: tuple[int, ...]
    """Foreground class indices, 0-based (aeroplane is 0), ascending."""


class Annotation(NamedTuple):
    """What an XML says of its image."""

    path: Path
    labels: tuple[int, ...]
    """Foreground class indices, 0-based, ascending."""
    size: tuple[int, int] | None
    """(width, height) in pixels; None where it is not told, or not in positive numbers."""
    picture: str
    """Name of its picture, without folders and ending; "" where it is not told."""


class VocDataset:
    """A data set on disk: its lists, pictures, masks and labels; only the classes are read at once.

    Raises DataError from every method when a file is missing or breaks the layout's rules.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "JPEGImages").is_dir():
            what = "no folder JPEGImages" if root.is_dir() else "no such folder"
            raise DataError(
                f"{root}: {what}; give the folder that holds JPEGImages, ImageSets "
                "and SegmentationClass (of VOC: VOCdevkit/VOC2012)"
            )
        self.classes = read_class_list(root)
        self._unusual: dict[str, dict[str, list[str]]] = {}

    def split_names(self) -> list[str]:
        """Return the names of all splits, sorted."""
        return sorted(files_of(self.root, "ImageSets/Segmentation"))

    def image_ids(self, split: str) -> list[str]:
        """Return the ids of a split in file order.

        A line is an id, its picture's name or path, or PSA's pair of paths.
        """
        folder = self.root / "ImageSets/Segmentation"
        if not IMAGE_ID.fullmatch(split):
            raise DataError(
                f"{folder}: {quoted(split)} is no valid name of a split; use letters, digits, '.', "
                "'_', '-'"
            )
        path = self._file("ImageSets/Segmentation", split)
        if path is None:
            names = printable(", ".join(self.split_names())) or "none"
            other = self.elsewhere("ImageSets/Segmentation", split)
            raise DataError(
                f"{folder / split}.txt: no such split{other}; there are: {names}; write this one, "
                "one image id per line, or name another (--split, --set data.train_split or "
                "data.eval_split)"
            )
        lines = read_text(path, MAX_LIST_BYTES, DataError).splitlines()
        ids = [self._listed_id(path, line.strip()) for line in lines if line.strip()]
        if not ids:
            raise DataError(f"{path}: the split is empty; write one image id per line")
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise DataError(f"{path}: {twice} is listed twice; keep it once")
        return ids

    def _listed_id(self, path: Path, line: str) -> str:
        """Return the id in a line of a list, which may name the image's files instead."""
        first, *rest = re.split(r"[\s,;]+", line)
        name = self._without_ending(PICTURE_FOLDER.sub("", first))
        masks = [found and found[1] for found in map(MASK_PATH.fullmatch, rest)]
        if IMAGE_ID.fullmatch(name) and masks in ([], [name]):
            return name
        raise DataError(
            f"{path}: {quoted(line)} is no image id; write one alone per line, without labels "
            "(they come from Annotations or masks), spaces or folders: letters, digits, '.', '_', "
            "'-', 200 at most, or JPEGImages/<id>.jpg"
        )

    def _without_ending(self, name: str) -> str:
        """Remove a picture's ending, unless it is part of the id."""
        stem, dot, ending = name.rpartition(".")
        if not stem or f"{dot}{ending}".lower() not in ENDINGS["JPEGImages"]:
            return name
        whole = IMAGE_ID.fullmatch(name) and self._file("JPEGImages", name)
        return name if whole else stem

    def image_path(self, image_id: str) -> Path:
        """Return the image's path: <id>.jpg, or with its own ending; it need not exist."""
        return self._file("JPEGImages", image_id) or self.root / f"JPEGImages/{image_id}.jpg"

    def has_masks(self) -> bool:
        """Return whether there is any mask at all."""
        folders = ("SegmentationClass", "SegmentationClassAug")
        return any(files_of(self.root, folder) for folder in folders)

    def has_mask(self, image_id: str) -> bool:
        """Return whether there is a mask, even as a broken link."""
        return self._mask_path(image_id) is not None

    def mask_path(self, image_id: str) -> Path:
        """Return the path of VOC's own mask, or of SBD's if VOC has none."""
        if path := self._mask_path(image_id):
            return path
        path = self.root / f"SegmentationClass/{image_id}.png"
        raise DataError(
            f"{path}: no mask here ({what_is_there(path)}), nor in SegmentationClassAug"
            f"{self.elsewhere('SegmentationClass', image_id)}; add one as PNG"
        )

    def mask_paths(self, image_ids: list[str]) -> list[Path]:
        """Return `mask_path` of each image. Raises DataError if one has no mask."""
        lacking = [image_id for image_id in image_ids if not self.has_mask(image_id)]
        if lacking:
            raise DataError(
                f"{self.root}: {len(lacking)} of {len(image_ids)} images have no mask, first "
                f"{lacking[0]}; add SegmentationClass/{lacking[0]}.png and the others, or leave "
                "out `masks` (the supervised bound), for example with `sweeps headline none`"
            )
        return [self.mask_path(image_id) for image_id in image_ids]

    def mask(self, image_id: str) -> "NDArray[np.uint8]":
        """Return the mask: [H, W], 0 background, 1..K classes, 255 ignored."""
        from wsss.data.pictures.mask import read_mask

        return read_mask(self.mask_path(image_id), len(self.classes))

    def image_size(self, image_id: str) -> tuple[int, int]:
        """Return (width, height) in pixels, upright, from the file's header."""
        from wsss.data.pictures.image import image_size

        return image_size(self.image_path(image_id))

    def sample(self, image_id: str) -> Sample:
        """Return an image with its image-level labels, at least one."""
        return self.annotated(image_id)[0]

    def annotated(
        self, image_id: str, *, may_be_empty: bool = False
    ) -> tuple[Sample, Annotation | None]:
        """Return `sample`, and what its XML says if it has one.

        may_be_empty: allow an image without a label.
        """
        path = self._file("Annotations", image_id)
        found = self._annotation(path) if path else None
        if found:
            labels = found.labels
        elif self.has_mask(image_id):
            path, labels = self.mask_path(image_id), labels_of_mask(self.mask(image_id))
        else:
            raise DataError(
                f"{self.root}/Annotations/{image_id}.xml: no annotation here"
                f"{self.elsewhere('Annotations', image_id)}, and no mask; an image needs one of "
                "them for its labels"
            )
        if not labels and not may_be_empty:
            remedy = "add an <object>" if found else "write class numbers, the first is 1"
            raise DataError(
                f"{path}: no class present, and an image needs at least one; {remedy}, or remove "
                "the image from its splits"
            )
        return Sample(image_id, self.image_path(image_id), labels), found

    def samples(self, split: str) -> list[Sample]:
        """Return a split's images with their image-level labels, in file order."""
        return [self.sample(image_id) for image_id in self.image_ids(split)]

    def elsewhere(self, folder: str, name: str) -> str:
        """Return ` (there is <file>)` if another folder has what this one lacks, else "".

        labelme's masks are in SegmentationClassPNG, VOC's other lists in ImageSets/Main.
        """
        parent, file = (self.root / folder).parent, f"{name}{ENDINGS[folder][0]}"
        found = [*sorted(parent.glob(f"*/{file}")), parent / file, self.root / file]
        others = [path.relative_to(self.root) for path in found if path.exists()]
        not_these = {*ENDINGS, "SegmentationObject"}  # VOC's numbers of objects
        others = [path for path in others if path.parent.as_posix() not in not_these]
        return f" (there is {others[0]})" if others else ""

    def _annotation(self, path: Path) -> Annotation:
        content = read_bytes(path, MAX_XML_BYTES, DataError)
        try:
            root = ElementTree.fromstring(content, ElementTree.XMLParser(target=_PlainTree()))
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise DataError(
                f"{path}: not well-formed XML, or of an unsupported kind ({error}); replace it, or "
                "save it as UTF-8 without a document type"
            ) from None
        labels = {self._label(path, node) for node in root.findall("object")}
        size = _number(root.findtext("size/width")), _number(root.findtext("size/height"))
        picture = PureWindowsPath((root.findtext("filename") or "").strip()).stem  # of any system
        return Annotation(path, tuple(sorted(labels)), size if all(size) else None, picture)

    def _label(self, path: Path, node: ElementTree.Element) -> int:
        """Return the class of an <object>."""
        names = [class_name(name.text or "") for name in node.findall("name")]
        if len(names) != 1 or not names[0]:
            raise DataError(f"{path}: an object without one name; name its class or remove it")
        if names[0] not in self.classes:
            assumed = "" if has_class_list(self.root) else "; no classes.txt, so VOC's"
            raise DataError(
                f"{path}: unknown class {quoted(names[0])}; correct it, remove the object (as of "
                "background), or add the class to classes.txt "
                f"(known: {', '.join(self.classes)}{assumed})"
            )
        return self.classes.index(names[0])

    def _mask_path(self, image_id: str) -> Path | None:
        own = self._file("SegmentationClass", image_id)
        return own or self._file("SegmentationClassAug", image_id)

    def _file(self, folder: str, name: str) -> Path | None:
        """Return a file of this name with any of the folder's endings, even as a broken link."""
        usual = f"{name}{ENDINGS[folder][0]}"
        found = self._unusual_in(folder).get(name, [usual])
        if len(found) > 1:
            raise DataError(
                f"{self.root / folder}: {' and '.join(found)} are both {name}; keep one of them"
            )
        path = self.root / folder / found[0]
        refuse_pipe(path, DataError)
        return path if path.is_symlink() or path.exists() else None

    def _unusual_in(self, folder: str) -> dict[str, list[str]]:
        """Return by name those files that are not a single file with VOC's own ending; cached."""
        if folder not in self._unusual:
            usual, files = ENDINGS[folder][0], files_of(self.root, folder)
            self._unusual[folder] = {
                name: found for name, found in files.items() if found != [f"{name}{usual}"]
            }
        return self._unusual[folder]


def _number(text: str | None) -> int:
    """Return a positive whole number of at most nine digits; 0 for anything else."""
    match = re.fullmatch(r"\s*([0-9]{1,9})(?:\.0*)?\s*", text or "")
    return int(match[1]) if match else 0


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type, whose entities can stand for gigabytes or for files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Raise ValueError: VOC's annotations have none."""
        raise ValueError("a document type (<!DOCTYPE>) is refused")


def files_of(root: Path, folder: str) -> dict[str, list[str]]:
    """Return a layout folder's files: name without ending -> sorted file names."""
    found: dict[str, list[str]] = {}
    try:
        names = os.listdir(root / folder)  # noqa: PTH208 - of many thousands
    except (FileNotFoundError, NotADirectoryError):
        return found
    for file_name in sorted(names):
        name, dot, ending = file_name.rpartition(".")
        if f"{dot}{ending}".lower() in ENDINGS[folder] and not file_name.startswith("."):
            found.setdefault(name, []).append(file_name)
    return found


def labels_of_mask(mask: "NDArray[np.uint8]") -> tuple[int, ...]:
    """Return the 0-based foreground classes of a mask [H, W], ascending."""
    import numpy as np

    counts = np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)
    return tuple(int(k) for k in np.flatnonzero(counts[1:IGNORE_INDEX]))
