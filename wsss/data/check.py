"""Checks a data set before compute is spent, and names it by its content."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wsss.data.lists import DataError

if TYPE_CHECKING:
    from wsss.data.voc import VocDataset

MAX_PROBLEMS = 20
"""Problems listed in one error; the rest is counted."""


@dataclass
class DataReport:
    """What a data set holds, as far as the asked splits go."""

    root: Path
    classes: tuple[str, ...]
    fingerprint: str = ""
    """First 16 hex digits of a SHA-256 over splits, labels, mask bytes and image file sizes."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Split -> the same of this split alone."""
    num_images: dict[str, int] = field(default_factory=dict)
    """Split -> number of images."""
    images_per_class: dict[str, list[int]] = field(default_factory=dict)
    """Split -> for each class, the number of images that hold it."""
    labels_from_mask: dict[str, int] = field(default_factory=dict)
    """Split -> images without XML, whose image-level labels come from their masks."""
    problems: list[str] = field(default_factory=list)

    def raise_if_broken(self) -> None:
        """Raise DataError with the problems, one a line, if there are any."""
        if not self.problems:
            return
        rest = len(self.problems) - MAX_PROBLEMS
        lines = self.problems[:MAX_PROBLEMS] + ([f"... and {rest} more"] if rest > 0 else [])
        raise DataError("\n".join(lines))


def check_data(dataset: "VocDataset", splits: list[str]) -> DataReport:
    """Read every label, mask and image header of the given splits.

    Problems are collected, not raised: see `DataReport.raise_if_broken`. Image pixels are not
    decoded, so a truncated JPEG is found only when it is used.
    """
    report = DataReport(dataset.root, dataset.classes)
    classes = hashlib.sha256("\n".join(dataset.classes).encode())
    whole = classes.copy()
    seen: dict[str, CheckedImage] = {}
    for split in splits:
        try:
            image_ids = dataset.image_ids(split)
        except DataError as error:
            report.problems.append(str(error))
            continue
        own = classes.copy()
        own.update(f"\n[{split}]\n".encode() + "\n".join(image_ids).encode())
        per_class, from_mask = Counter[int](), 0
        for image_id in image_ids:
            if image_id not in seen:
                try:
                    seen[image_id] = _check_image(dataset, image_id)
                except DataError as error:
                    report.problems.append(str(error))
                    seen[image_id] = CheckedImage((), "", b"")
            image = seen[image_id]
            own.update(image.digest)
            per_class.update(image.labels)
            from_mask += image.label_source == "mask"
        whole.update(own.digest())
        report.fingerprints[split] = own.hexdigest()[:16]
        report.num_images[split] = len(image_ids)
        report.images_per_class[split] = [per_class[k] for k in range(len(dataset.classes))]
        report.labels_from_mask[split] = from_mask
    report.fingerprint = whole.hexdigest()[:16]
    return report


class CheckedImage(NamedTuple):
    """What the check found in one image, its mask and its labels."""

    labels: tuple[int, ...]
    label_source: str
    digest: bytes


def _check_image(dataset: "VocDataset", image_id: str) -> CheckedImage:
    """Check one image against its mask."""
    width, height = dataset.image_size(image_id)
    mask = dataset.mask(image_id)
    if mask.shape != (height, width):
        raise DataError(
            f"{dataset.mask_path(image_id)}: {mask.shape[1]}x{mask.shape[0]} pixels, the image has "
            f"{width}x{height}; a mask has its image's size"
        )
    sample = dataset.sample(image_id)
    digest = hashlib.sha256(f"{sample.labels} {sample.image_path.stat().st_size} ".encode())
    digest.update(mask.tobytes())
    return CheckedImage(sample.labels, sample.label_source, digest.digest())
