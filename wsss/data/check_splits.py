"""Compares the splits of a data set with each other, its folders and VOC 2012's lists."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from wsss.basics.printable import counted, first_of
from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.report import DataReport
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


def read_lists(
    dataset: VocDataset, splits: Iterable[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Return split -> its image ids, and problems: lists that cannot be read, shared images."""
    ids: dict[str, list[str]] = {}
    problems = []
    for split in splits:
        try:
            ids[split] = dataset.image_ids(split)
        except DataError as error:
            problems.append(str(error))
    return ids, problems + overlaps(ids)


def compare_lists(report: DataReport, dataset: VocDataset, splits: Iterable[str]) -> None:
    """Add to a report how splits fit together, VOC 2012's own lists, and the folders.

    An altered list is a problem, as are shared images; files that no split uses are noted.
    """
    ids, problems = read_lists(dataset, splits)
    for split in filter(OFFICIAL_SPLITS.get, ids) if dataset.classes == VOC_CLASSES else ():
        report.official[split] = is_official(split, ids[split])
        if report.official[split] or not all(map(VOC_ID.fullmatch, ids[split])):
            continue
        have, num_official = len(ids[split]), OFFICIAL_SPLITS[split].num_images
        if have == num_official:
            problems.append(
                f"{split}: as many ids as VOC 2012's list ({have:,}), but not the same; use the "
                "list of another copy, such as `wsss data prepare` makes in a new folder"
            )
        else:
            report.notes.append(f"{split}: {counted(have, 'image')}, VOC 2012 has {num_official:,}")
    report.problems += [problem for problem in problems if problem not in report.problems]
    outside = sorted({*ids.get("train", ())} - {*ids.get(TRAINED, ids.get("train", ()))})
    if outside:
        report.notes.append(f"train has {_named(outside)} that {TRAINED} lacks")
    if TRAINED not in dataset.split_names():
        report.notes.append(
            f"no {TRAINED}.txt, the list that trains by default; write one, or train on another "
            "with --set data.train_split=NAME"
        )
    report.notes += _orphans(dataset)


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
    return split in OFFICIAL_SPLITS and split_digest(image_ids) == OFFICIAL_SPLITS[split].sha256


def _orphans(dataset: VocDataset) -> Iterator[str]:
    """Yield notes on files that no split on disk uses, and on files without a picture."""
    used = {i for ids in read_lists(dataset, dataset.split_names())[0].values() for i in ids}
    found = {folder: {*files_of(dataset.root, folder)} for folder in FOLDERS}
    for folder, stems in found.items():
        if unused := sorted(stems - used):
            yield f"{folder}: {_named(unused)} in no split"
        if alone := sorted(stems - found["JPEGImages"]):
            yield f"{folder}: {_named(alone)} without a picture"


def _named(ids: list[str]) -> str:
    return f"{counted(len(ids), 'image')} ({first_of(ids)})"
