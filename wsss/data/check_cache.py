"""Remembers that a data set was found whole, so that the next command need not read it all again.

A check is known again by the relative path, size and time of change (in nanoseconds) of every file
that it read. It lies in the user's cache folder, never in the data folder, which may be read-only.
What a hit does not see: a file whose bytes were changed while its size and its time were kept, as
some copying tools and failing disks do. `recheck` reads everything again.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsss.data.check import DataReport, check_data
from wsss.data.lists import DataError, VocLists

VERSION = 2
"""Part of every entry. Raise it when the check or its fingerprint changes."""


def check_data_once(dataset: VocLists, splits: list[str], *, recheck: bool = False) -> DataReport:
    """Return `check_data`'s report, or the one of an earlier check of the very same files.

    A broken data set is never remembered, nor one whose files changed while they were read. A cache
    folder that cannot be written costs only the time of the next check.
    """
    listing = _listing(dataset, splits)
    path = cache_folder() / f"{_name(dataset, splits)}.json"
    if listing and not recheck and (known := _read(path, listing, dataset)):
        return known
    from wsss.data.voc import VocDataset  # only a check that reads pictures needs Pillow

    report = check_data(VocDataset(dataset.root), splits)
    if listing and not report.problems and _listing(dataset, splits) == listing:
        _write(path, listing, report)
    return report


def cache_folder() -> Path:
    """Return the folder of remembered checks: in WSSS_CACHE, else in the user's cache folder."""
    chosen = os.environ.get("WSSS_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsss-sweeps"
    return (Path(chosen) if chosen else base) / "checks"


def _name(dataset: VocLists, splits: list[str]) -> str:
    text = "\n".join([str(dataset.root.resolve()), *splits])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _listing(dataset: VocLists, splits: list[str]) -> str:
    """Digest path, size and time of every file that the check reads; "" if a split is broken.

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
            digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path} missing\n".encode())
    return digest.hexdigest()


def _read(path: Path, listing: str, dataset: VocLists) -> DataReport | None:
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
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
