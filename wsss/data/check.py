"""Checks a data set before compute is spent, names it by its content, and remembers a whole one.

A remembered check is known again by the relative path, size and times (in nanoseconds) of every
file that it read: of its content, and of the file itself, which no copying tool sets back. It lies
in the user's cache folder, never in the data folder, which may be read-only. What it does not see
are bytes that change by themselves, as on a failing disk. `recheck` reads everything again.
"""

import hashlib
import json
import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from wsss.data.voc import DataError, VocDataset
from wsss.json_files import whole_or_absent
from wsss.paths import cache_folder, expanded

MAX_PROBLEMS = 20
"""Problems listed in one error; the rest is counted."""
VERSION = 3
"""Part of every remembered check. Raise it when the check or its fingerprint changes."""


@dataclass
class DataReport:
    """What a data set holds, as far as the asked splits go."""

    root: Path
    classes: tuple[str, ...]
    fingerprint: str = ""
    """First 16 hex digits of a SHA-256 over splits, labels, masks and image files."""
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


def check_data(dataset: VocDataset, splits: list[str]) -> DataReport:
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


def _check_image(dataset: VocDataset, image_id: str) -> CheckedImage:
    """Check one image against its mask."""
    width, height = dataset.image_size(image_id)
    mask = dataset.mask(image_id)
    if mask.shape != (height, width):
        raise DataError(
            f"{dataset.mask_path(image_id)}: {mask.shape[1]}x{mask.shape[0]} pixels, the image has "
            f"{width}x{height}; a mask has its image's size"
        )
    sample = dataset.sample(image_id)
    digest = hashlib.sha256(f"{sample.labels} ".encode() + sample.image_path.read_bytes())
    digest.update(mask.tobytes())
    return CheckedImage(sample.labels, sample.label_source, digest.digest())


def check_data_once(dataset: VocDataset, splits: list[str], *, recheck: bool = False) -> DataReport:
    """Return `check_data`'s report, or the one of an earlier check of the very same files.

    A broken data set is never remembered, nor one whose files changed while they were read. A cache
    folder that cannot be written costs only the time of the next check.
    """
    listing = _listing(dataset, splits)
    folder = checks_folder()
    if folder is None or not listing:
        return check_data(dataset, splits)
    path = folder / f"{_name(dataset, splits)}.json"
    if not recheck and (known := _read(path, listing, dataset)):
        return known
    report = check_data(dataset, splits)
    if not report.problems and _listing(dataset, splits) == listing:
        _write(path, listing, report)
    return report


def checks_folder() -> Path | None:
    """Return the folder of remembered checks: in WSSS_CACHE, else in the user's cache folder.

    None without a home.
    """
    if chosen := os.environ.get("WSSS_CACHE"):
        return Path(expanded(chosen)) / "checks"
    cache = cache_folder()
    return cache and cache / "wsss-sweeps" / "checks"


def _name(dataset: VocDataset, splits: list[str]) -> str:
    text = "\n".join([str(dataset.root.resolve()), *splits])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _listing(dataset: VocDataset, splits: list[str]) -> str:
    """Digest path, size and times of every file that the check reads; "" if a split is broken.

    A file that is not there counts as such: an XML that is added later changes labels.
    """
    paths = {"classes.txt"}
    for split in splits:
        try:
            image_ids = dataset.image_ids(split)
        except DataError:
            return ""
        paths.add(f"ImageSets/Segmentation/{split}.txt")
        for image_id in image_ids:
            paths |= {
                f"JPEGImages/{image_id}.jpg", f"Annotations/{image_id}.xml",
                f"SegmentationClass/{image_id}.png", f"SegmentationClassAug/{image_id}.png",
            }  # fmt: skip
    digest = hashlib.sha256()
    # As text, in the order of Path objects: those would take longer than all the rest of a plan.
    for path in sorted(paths, key=lambda path: path.split("/")):
        try:
            stat = os.stat(f"{dataset.root}/{path}")  # noqa: PTH116 - a third of the time
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        except OSError:
            digest.update(f"{path} missing\n".encode())
    return digest.hexdigest()


def _read(path: Path, listing: str, dataset: VocDataset) -> DataReport | None:
    """Return the remembered report if it is of these files; a damaged one is as good as none."""
    try:
        saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (saved["version"], saved["listing"]) != (VERSION, listing):
            return None
        return DataReport(dataset.root, dataset.classes, **saved["report"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, listing: str, report: DataReport) -> None:
    kept = asdict(report)
    del kept["root"], kept["classes"]  # as they are now, when it is read
    text = json.dumps({"version": VERSION, "listing": listing, "report": kept})
    with suppress(OSError), whole_or_absent(path) as partial:
        partial.write_text(text, encoding="utf-8")
