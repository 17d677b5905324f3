"""The page of `wsss data check`: what a data set holds, as text for a person or as JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from wsss.data.check import DataReport
from wsss.data.check_splits import SplitCounts, SplitReport
from wsss.printable import one_line

COLUMN = 18


def problems(report: DataReport, against: SplitReport) -> list[str]:
    """Return the problems of both checks, each once."""
    return list(dict.fromkeys([*report.problems, *against.problems]))


def page(report: DataReport, against: SplitReport) -> str:
    """Return lines of text: classes by split, what the splits hold, and what stood out."""
    splits = report.num_images
    lines = [f"{one_line(str(report.root))}  [{report.fingerprint}]", ""]
    if splits:
        lines.append("images by their labels; share of the scored pixels by masks")
        lines.append(_line("class", splits))
    for index, name in enumerate(report.classes):
        images = [counts[index] for counts in report.images_per_class.values()]
        if any(images):
            shares = [_share(c.pixels[index], c) for c in _counts(report, against)]
            lines.append(_line(name, [f"{n}{s}" for n, s in zip(images, shares, strict=True)]))
    if splits:
        shares = [_share(c.background_pixels, c) for c in _counts(report, against)]
        lines.append(_line("background", shares))
        lines.append(_line("images", splits.values()))
        lines.append(_line("with a mask", report.num_masks.values()))
        lines.append(_line("labels from masks", report.labels_from_mask.values()))
        lines.append(_line("pixels ignored", [c.ignored_pixels for c in _counts(report, against)]))
    official = [split for split, whole in against.official.items() if whole]
    lines += [f"VOC 2012's own list: {', '.join(official)}"] if official else []
    return "\n".join([*lines, *(f"note: {note}" for note in [*report.notes, *against.notes])])


def as_json(report: DataReport, against: SplitReport) -> str:
    """Return the same as one JSON object."""
    found = {**asdict(report), "root": str(report.root), **asdict(against)}
    found["notes"] = [*report.notes, *against.notes]
    found["problems"] = problems(report, against)
    return json.dumps(found, indent=2)


def _counts(report: DataReport, against: SplitReport) -> list[SplitCounts]:
    return [against.counts[split] for split in report.num_images]


def _share(pixels: int, counts: SplitCounts) -> str:
    scored = counts.background_pixels + sum(counts.pixels)
    return f" {100 * pixels / scored:6.2f} %" if scored else ""


def _line(name: str, cells: Iterable[object]) -> str:
    return f"{name:>{COLUMN}}" + "".join(f"{cell!s:>{COLUMN}}" for cell in cells)
