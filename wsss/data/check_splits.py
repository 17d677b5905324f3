"""Compares the splits of a data set with each other, its folders and VOC 2012's lists."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsss.basics.printable import command, counted, first_of, one_line
from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset, files_of


class OfficialSplit(NamedTuple):
    """A split of the full VOC 2012."""

    num_images: int
    sha256: str
    """See `split_digest`."""


OFFICIAL_SPLITS = {
    "train": OfficialSplit(
        1464, "aa623bd2c8ce4443a8aaae51c524c0eb165e8e44caf6aa9e3ad33d7b75a3ef20"
    ),
    "val": OfficialSplit(1449, "cdc1326d12f69ce5153aa5da04a4d8783e146868d42d19f82f44e74b97ac907d"),
    "train_aug": OfficialSplit(
        10582, "d1326bd532648d73bc4b1bd275434eba81930982dc7401a65a8cecb26c028e24"
    ),
    "test": OfficialSplit(1456, "5e8fe0c14b2e6633fb2e3a0f5db65fb6b8f5217b574478bb21127a48fd33010f"),
}
DISJOINT = (
    ("train", "val"),
    ("train_aug", "val"),
    ("train", "test"),
    ("train_aug", "test"),
    ("val", "test"),
)
"""Pairs of splits that may not share an image: one is trained on, the other is scored."""
TRAINED = "train_aug"
VOC_ID = re.compile(r"\d{4}_\d{6}")
FOLDERS = ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug")
SHOWN = 3
"""Ids named in a line; the others are counted."""


@dataclass
class SplitCounts:
    """What the masks of one split hold. The lists have an entry per class, without background."""

    num_images: int
    num_masks: int
    """Images whose mask could be read; the counts below are of these."""
    images: list[int]
    """For each class, the masks that hold it."""
    pixels: list[int]
    """For each class, its pixels in all masks."""
    background_pixels: int
    ignored_pixels: int


@dataclass
class SplitReport:
    """What the checked splits hold, and how they fit together."""

    classes: tuple[str, ...]
    counts: dict[str, SplitCounts] = field(default_factory=dict)
    official: dict[str, bool] = field(default_factory=dict)
    """Split -> whether its ids are those of the full VOC 2012."""
    problems: list[str] = field(default_factory=list)
    """What makes results wrong, one line each: shared images, an altered list."""
    notes: list[str] = field(default_factory=list)
    """What may be intended, one line each: files that no split uses."""


def split_report(dataset: VocDataset, splits: Iterable[str]) -> SplitReport:
    """Count classes in every mask of the splits; compare splits, folders and official lists.

    A split that cannot be read is a problem. Missing and broken masks are only left out of the
    counts: `check_data` names them.
    """
    report = SplitReport(dataset.classes)
    ids: dict[str, list[str]] = {}
    seen: dict[str, NDArray[np.int64] | None] = {}
    for split in dict.fromkeys(splits):
        try:
            ids[split] = dataset.image_ids(split)
        except DataError as error:
            report.problems.append(str(error))
            continue
        for image_id in ids[split]:
            if image_id not in seen:
                seen[image_id] = _histogram(dataset, image_id)
        histograms = [h for image_id in ids[split] if (h := seen[image_id]) is not None]
        report.counts[split] = _counts(histograms, len(ids[split]), len(dataset.classes))
        if split in OFFICIAL_SPLITS and dataset.classes == VOC_CLASSES:
            report.official[split] = is_official(split, ids[split])
            if not report.official[split]:
                _note_another_list(report, dataset.root, split, ids[split])
    report.problems += overlaps(ids)
    outside = sorted({*ids.get("train", ())} - {*ids.get(TRAINED, ids.get("train", ()))})
    if outside:
        report.notes.append(f"train has {_named(outside)} that {TRAINED} lacks")
    if TRAINED not in dataset.split_names():
        report.notes.append(
            f"no {TRAINED}.txt, the list that trains by default; write one, or train on another "
            "with --set data.train_split=NAME"
        )
    _find_orphans(report, dataset)
    return report


def overlaps(ids: Mapping[str, list[str]]) -> list[str]:
    """Return a problem for each of the DISJOINT pairs of splits that shares images.

    ids: split -> its image ids.
    """
    problems = []
    for first, second in DISJOINT:
        shared = sorted({*ids.get(first, ())} & {*ids.get(second, ())})
        if shared:
            problems.append(
                f"{first} and {second} share {_named(shared)}; remove them from one of the two"
            )
    return problems


def split_digest(image_ids: Iterable[str]) -> str:
    """Return the SHA-256 hex digest of the sorted ids, a newline after each."""
    text = "".join(f"{image_id}\n" for image_id in sorted(image_ids))
    return hashlib.sha256(text.encode()).hexdigest()


def is_official(split: str, image_ids: Iterable[str]) -> bool:
    """Return whether these are the ids of that split of the full VOC 2012, in any order."""
    known = OFFICIAL_SPLITS.get(split)
    return known is not None and split_digest(image_ids) == known.sha256


def _histogram(dataset: VocDataset, image_id: str) -> NDArray[np.int64] | None:
    # Pixels by mask value.  [256]
    try:
        return np.bincount(dataset.mask(image_id).ravel(), minlength=256)
    except DataError:
        return None


def _counts(histograms: list[NDArray[np.int64]], num_images: int, num_classes: int) -> SplitCounts:
    stacked = np.array(histograms, np.int64).reshape(-1, 256)  # [N, 256]
    pixels = stacked.sum(axis=0)
    foreground = slice(1, num_classes + 1)
    return SplitCounts(
        num_images,
        len(histograms),
        images=[int(n) for n in (stacked[:, foreground] > 0).sum(axis=0)],
        pixels=[int(n) for n in pixels[foreground]],
        background_pixels=int(pixels[0]),
        ignored_pixels=int(pixels[255]),
    )


def _note_another_list(report: SplitReport, root: Path, split: str, ids: list[str]) -> None:
    """Report an altered list as a problem, and a part of VOC as a note."""
    if not all(VOC_ID.fullmatch(image_id) for image_id in ids):
        return
    official = OFFICIAL_SPLITS[split]
    if len(ids) == official.num_images:
        anew = root.absolute().with_name(f"{root.absolute().name}-anew")
        report.problems.append(
            f"{split}: as many ids as VOC 2012's list ({official.num_images}), but not the same; "
            "use the list of another copy, such as that of: "
            f"{command('wsss', 'data', 'prepare', anew)}"
        )
    else:
        have = counted(len(ids), "image")
        report.notes.append(f"{split}: {have}, VOC 2012 has {official.num_images:,}")


def _find_orphans(report: SplitReport, dataset: VocDataset) -> None:
    """Add notes on files that no split on disk uses, and on files without a picture."""
    used: set[str] = set()
    for split in dataset.split_names():
        try:
            used |= {*dataset.image_ids(split)}
        except DataError:
            continue  # a problem already, if it is one of the checked splits
    found = {folder: {*files_of(dataset.root, folder)} for folder in FOLDERS}
    for folder, stems in found.items():
        if unused := sorted(stems - used):
            report.notes.append(f"{folder}: {_named(unused)} in no split")
        if alone := sorted(stems - found["JPEGImages"]):
            report.notes.append(f"{folder}: {_named(alone)} without a picture")


def _named(ids: list[str]) -> str:
    shown = first_of([one_line(image_id) for image_id in ids], SHOWN)
    return f"{counted(len(ids), 'image')} ({shown})"
