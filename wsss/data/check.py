"""Checks a data set before compute is spent, names it by its content, and remembers a good one.

A remembered check is valid while the layout's folders hold the same files, of the same sizes and
times (in nanoseconds): of modification, and of status change, which no copying tool sets back. It
is in the user's cache folder, as the data folder may be read-only. It does not notice bytes that
change by themselves, as on a failing disk; `recheck` reads everything again.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from wsss.basics.files import cache_folder, expanded, read_json, write_json
from wsss.basics.printable import first_of, printable
from wsss.basics.progress import shown
from wsss.data.check_splits import VOC_ID, read_lists
from wsss.data.classes import CLASS_LIST, IGNORE_INDEX, VOC_CLASSES, has_class_list
from wsss.data.errors import DataError
from wsss.data.report import DataReport, MaskCounts
from wsss.data.voc import ENDINGS, Annotation, VocDataset

MAX_ODD = 0.3
"""Share of VOC's and SBD's masks that may hold other classes than their XML.

None of 632 of VOC's own does. In 14 % of these pictures the XML names a class only for difficult
objects, which SBD's annotators may have left out: hence about twice that."""
SIZE_SLACK = 2
"""Pixels by which rounding and some annotation tools change a side: labelImg's issue 445."""
VERSION = 9
"""Part of every remembered check. Raise it when the check or its fingerprint changes."""


def check_data(
    dataset: VocDataset,
    splits: list[str],
    *,
    scored: Collection[str],
    may_be_empty: Collection[str] = (),
    decode: bool = False,
) -> DataReport:
    """Read every label, mask and image header of the given splits.

    Images of `scored` splits and those without XML need a mask; where an image has both, they are
    compared, and so are splits that may not share an image. Problems are collected, not raised: see
    `DataReport.raise_if_broken`.
    may_be_empty: splits whose images may have no class: they can be segmented, not trained on.
    decode: also decode the pictures, which is needed to find a truncated or damaged JPEG.
    """
    from wsss.data.pictures.image import decoded_words

    report = DataReport(root=dataset.root, classes=dataset.classes)
    ids, report.problems = read_lists(dataset, splits)
    need_mask = {image_id for split in scored for image_id in ids.get(split, ())}
    unmasked = (image_id for image_id in need_mask if not dataset.has_mask(image_id))
    if lacking := sorted(i for i in unmasked if dataset.image_path(i).exists()):
        report.problems.append(
            f"{dataset.root}: {len(lacking):,} of {len(need_mask):,} images to be scored "
            f"({', '.join(scored)}) have no mask; write SegmentationClass/<id>.png for them, score "
            "a list of the others (docs/data.md), or train without a score: wsss train-cam"
        )
        need_mask -= {*lacking[1:]}  # the error of the first says what is there instead
    segmented = {image_id for split in may_be_empty for image_id in ids.get(split, ())}
    seen: dict[str, CheckedImage] = {}
    every = list(dict.fromkeys(image_id for part in ids.values() for image_id in part))
    for image_id in shown(every, "checking the data"):
        try:
            if decode and (words := decoded_words(path := dataset.image_path(image_id))):
                report.notes.append(
                    f"{path}: damaged, though it can be decoded ({printable(words)}); look at it, "
                    "and get it again if parts are grey or displaced"
                )
            seen[image_id] = _check_image(
                dataset,
                image_id,
                needs_mask=image_id in need_mask,
                may_be_empty=image_id in segmented,
            )
        except DataError as error:
            report.problems.append(str(error))
            seen[image_id] = CheckedImage()
    _count(report, ids, seen)
    _judge_contradictions(report, seen)
    report.notes += _notes_on_xml(seen)
    report.notes += _notes_on_labels(report, seen)
    report.notes += _notes_on_masks(report, ids, seen)
    return report


@dataclass
class CheckedImage:
    """What the check found in one image, its mask and its labels; empty for a broken one."""

    labels: tuple[int, ...] = ()
    annotation: Annotation | None = None
    digest: bytes = b""
    """Of its labels and its picture's file."""
    mask_digest: bytes = b""
    pixels: dict[int, int] = field(default_factory=dict)
    """By value of its mask, of those that occur; {} without a mask."""
    contradiction: str = ""
    """How mask and XML differ in their classes."""
    is_resized: bool = False
    """Whether the XML tells another size of about the same shape."""


def _check_image(
    dataset: VocDataset, image_id: str, *, needs_mask: bool, may_be_empty: bool
) -> CheckedImage:
    """Check one image against its labels and its mask."""
    import numpy as np

    from wsss.data.pictures.mask import require_size

    size, mask = dataset.image_size(image_id), None
    if needs_mask or dataset.has_mask(image_id):
        mask = dataset.mask(image_id)
        require_size(dataset.mask_path(image_id), mask, size)
    sample, annotation = dataset.annotated(image_id, may_be_empty=may_be_empty)
    digest = hashlib.sha256(f"{sample.labels} ".encode() + sample.image_path.read_bytes())
    found = CheckedImage(sample.labels, annotation, digest.digest())
    if annotation:
        found.is_resized = _is_resized(annotation, size)
    if mask is not None:
        found.mask_digest = hashlib.sha256(mask.tobytes()).digest()
        counts = np.bincount(mask.ravel())
        # No array: kept between pictures that come and go, each holds 60 kB of memory.
        found.pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        in_mask = tuple(value - 1 for value in found.pixels if 0 < value < IGNORE_INDEX)
        if annotation and in_mask != sample.labels:
            found.contradiction = (
                f"{dataset.mask_path(image_id)}: the classes of the mask are "
                f"{_named(in_mask, dataset)}, those of its XML {_named(sample.labels, dataset)}; "
                f"correct one of the two: in masks {dataset.classes[0]} is 1, and {IGNORE_INDEX} "
                "is ignored"
            )
    return found


def _named(labels: Iterable[int], dataset: VocDataset | DataReport) -> str:
    return ", ".join(dataset.classes[k] for k in sorted(labels)) or "none"


def _is_resized(annotation: Annotation, size: tuple[int, int]) -> bool:
    """Return whether a picture of `size` (width, height) had another one when it was annotated.

    Raises DataError for another shape: it may be another picture.
    """
    told = annotation.size
    if told is None or told == size:
        return False
    if abs(told[0] * size[1] - told[1] * size[0]) > SIZE_SLACK * max(*told, *size):
        raise DataError(
            f"{annotation.path}: <size> says {told[0]}x{told[1]} pixels, its picture has "
            f"{size[0]}x{size[1]} when its EXIF tag has turned it upright: is it the XML of "
            "another picture? Put its own there, or correct or remove <size>"
        )
    return True


def _count(report: DataReport, ids: dict[str, list[str]], seen: dict[str, CheckedImage]) -> None:
    """Fill in counts and fingerprints, split by split."""
    classes = hashlib.sha256("\n".join(report.classes).encode())
    whole, foreground = classes.copy(), range(1, len(report.classes) + 1)
    for split, image_ids in ids.items():
        images = [seen[image_id] for image_id in image_ids]
        own = classes.copy()
        own.update(f"\n[{split}]\n".encode() + "\n".join(image_ids).encode())
        for image in images:
            own.update(image.digest)
        report.training_fingerprints[split] = own.hexdigest()[:16]
        for image in images:
            own.update(b"|" + image.mask_digest)
        whole.update(own.digest())
        per_class = Counter(k for image in images for k in image.labels)
        masks = [image.pixels for image in images if image.pixels]
        occurs, pixels = Counter[int](), Counter[int]()
        for mask in masks:
            occurs.update(mask.keys())
            pixels.update(mask)
        report.fingerprints[split] = own.hexdigest()[:16]
        report.num_images[split], report.num_masks[split] = len(images), len(masks)
        report.images_per_class[split] = [per_class[k] for k in range(len(report.classes))]
        report.labels_from_mask[split] = sum(
            bool(image.digest) and not image.annotation for image in images
        )
        report.counts[split] = MaskCounts(
            images=[occurs[value] for value in foreground],
            pixels=[pixels[value] for value in foreground],
            background_pixels=pixels[0],
            ignored_pixels=pixels[IGNORE_INDEX],
        )
    report.fingerprint = whole.hexdigest()[:16]


def _judge_contradictions(report: DataReport, seen: dict[str, CheckedImage]) -> None:
    """Report masks that contradict their XML as problems, but a few of VOC's or SBD's as a note.

    The user cannot correct those: SBD's masks and VOC's XML are two opinions of one picture.
    """
    both = [i for i, image in seen.items() if image.annotation and image.mask_digest]
    odd = [i for i in both if seen[i].contradiction]
    is_voc = report.classes == VOC_CLASSES and all(map(VOC_ID.fullmatch, odd))
    if odd and is_voc and len(odd) <= MAX_ODD * len(both):
        report.notes.append(
            f"{len(odd)} of {len(both)} masks of VOC and SBD hold other classes than their XML, "
            f"such as {odd[0]}; training uses the XML"
        )
    else:
        report.problems += [seen[i].contradiction for i in odd]


def _notes_on_xml(seen: dict[str, CheckedImage]) -> Iterator[str]:
    """Yield notes on what is allowed in XML, but may not be intended."""
    annotations = {i: image.annotation for i, image in seen.items() if image.annotation}
    others = [i for i, xml in annotations.items() if xml.picture != i and xml.picture in seen]
    if others:
        yield (
            f"<filename> is that of another picture in {len(others)} of {len(annotations)} XML, "
            f"such as Annotations/{others[0]}.xml ({annotations[others[0]].picture}); does each "
            "XML lie beside its own picture?"
        )
    if resized := [i for i in annotations if seen[i].is_resized]:
        yield (
            f"<size> is not the picture's in {len(resized)} of {len(annotations)} XML, such as "
            f"Annotations/{resized[0]}.xml; only the shapes agree, as if resized"
        )


def _notes_on_labels(report: DataReport, seen: dict[str, CheckedImage]) -> Iterator[str]:
    assumed = not has_class_list(report.root) and not all(VOC_ID.fullmatch(i) for i in seen)
    if assumed:
        yield (
            f"no {CLASS_LIST}: VOC's {len(VOC_CLASSES)} classes are assumed; write your own there, "
            "one per line"
        )
    labels = [{*image.labels} for image in seen.values() if image.labels]
    absent = {*range(len(report.classes))}.difference(*labels)
    if absent and labels and not assumed:
        yield f"in no image: {_named(absent, report)}"
    if len(labels) > 1 and (always := set.intersection(*labels)):
        yield (
            f"in every image: {_named(always, report)}; CAMs do not "
            "find such a class, as a classifier learns from images with and without it"
        )
    if empty := [i for i, image in seen.items() if image.digest and not image.labels]:
        yield (
            f"no class in {first_of(empty)}: a headline scores such an image; CAMs and "
            "training need a class"
        )
    same = defaultdict[bytes, list[str]](list)
    for image_id, image in seen.items():
        same[image.digest].append(image_id)
    if twice := [" = ".join(names) for digest, names in same.items() if digest and names[1:]]:
        yield f"the same picture under several ids: {first_of(twice)}"


def _notes_on_masks(
    report: DataReport, ids: dict[str, list[str]], seen: dict[str, CheckedImage]
) -> Iterator[str]:
    ignored = sum(counts.ignored_pixels for counts in report.counts.values())
    if ignored > sum(c.background_pixels + sum(c.pixels) for c in report.counts.values()):
        yield (
            f"more than half of the pixels of masks are {IGNORE_INDEX}, which is never scored; "
            "background is 0, and the first class 1"
        )
    for split in ids:
        if lacking := sum(bool(seen[i].labels) and not seen[i].mask_digest for i in ids[split]):
            yield (
                f"{split}: {lacking} of {len(ids[split])} images have no mask; XML is enough for "
                "training, a table needs masks of the images that it scores"
            )


def check_data_once(
    dataset: VocDataset,
    splits: list[str],
    *,
    scored: Collection[str],
    may_be_empty: Collection[str] = (),
    recheck: bool = False,
) -> DataReport:
    """Return `check_data`'s report, or the remembered one of the same, unchanged files.

    A broken data set is never remembered, nor one whose files changed during the check. If the
    cache folder cannot be written, the next check takes as long again.
    """
    about = (VERSION, splits, sorted(scored), sorted(may_be_empty))
    path = _remembered(dataset, about)
    if path and not recheck:
        with suppress(OSError, ValueError, TypeError):  # none there, or damaged
            return DataReport.model_validate(read_json(path) | {"root": dataset.root})
    report = check_data(dataset, splits, scored=scored, may_be_empty=may_be_empty)
    if path and not report.problems and _remembered(dataset, about) == path:
        with suppress(OSError):
            for old in path.parent.glob(f"{path.name.partition('-')[0]}-*"):
                old.unlink()
            write_json(path, report.model_dump(mode="json", exclude={"root"}))
    return report


def require_batch(
    num_images: int, batch_size: int, *, setting: str = "--set train.batch_size"
) -> None:
    """Raise DataError if there are fewer training images than a batch has.

    setting: the batch size's name, for the message.
    """
    if num_images < batch_size:
        raise DataError(
            f"{num_images} training images are fewer than one batch of {batch_size}; lower "
            f"{setting} to {num_images} or less"
        )


def checks_folder() -> Path | None:
    """Return the folder of remembered checks: in WSSS_CACHE, else in the user's cache folder.

    None if there is no such folder, as without a home.
    """
    if chosen := os.environ.get("WSSS_CACHE"):
        return Path(expanded(chosen)) / "checks"
    cache = cache_folder()
    return cache and cache / "wsss-sweeps" / "checks"


def _remembered(dataset: VocDataset, about: object) -> Path | None:
    """Return where a check of these very files is remembered; None if it cannot be.

    about: what else the check depends on.
    """
    folder = checks_folder()
    if folder is None:
        return None
    name = hashlib.sha256(repr((about, str(dataset.root.resolve()))).encode()).hexdigest()
    return folder / f"{name[:16]}-{_listing(dataset.root)[:32]}.json"


def _listing(root: Path) -> str:
    """Return a digest of name, size and times of every file of the layout."""
    files: list[tuple[str, Path | os.DirEntry[str]]] = [("", root / CLASS_LIST)]
    for folder in ENDINGS:
        with suppress(OSError), os.scandir(root / folder) as entries:
            files += [(folder, entry) for entry in sorted(entries, key=lambda entry: entry.name)]
    digest = hashlib.sha256()
    for folder, file in files:
        try:
            found = file.stat()
            times = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
        except OSError as error:  # none there, a broken link, or a drive that fails
            times = str(error.strerror)
        digest.update(f"{folder}/{file.name} {times}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
