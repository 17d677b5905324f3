"""Each image's intersection and union per label: of a run at two thresholds, of predictions.

All statistics over images need no more than this, and reading it is a hundred times faster than
counting again from all thresholds. Legend: N images, L labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sweeps.evidence.images import ImageCounts
from sweeps.plan.chains.chain import counts_id
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store
from wsss.basics.errors import let_through
from wsss.basics.files import BROKEN_ZIP, open_file, whole_or_absent
from wsss.config import RunConfig
from wsss.evaluation.confusion import ThresholdCounts

COUNTS = "counts.npz"
"""All counted pixels of a scored trial, in a folder of their own."""
FILE_NAME = "image_counts.npz"
PREDICTED = "predicted"
"""Name of the counts of a segmentation network's predictions."""
Threshold = Literal["fixed", "best"]
THRESHOLDS: tuple[Threshold, ...] = ("fixed", "best")
PARTS = ("intersection", "union")


@dataclass(frozen=True)
class RunImageCounts:
    """A run's pixel counts by image, at the fixed and at the best threshold."""

    image_ids: tuple[str, ...]
    """[N], sorted."""
    fixed: ImageCounts
    """[N, L] at the fixed background score, which saw no pixel ground truth."""
    best: ImageCounts
    """[N, L] at the best threshold, whose choice saw the pixel ground truth of all these images."""


def load_threshold_counts(store: Store, config: RunConfig) -> ThresholdCounts:
    """Read the counted pixels of a score, downloaded first if they are only in the bucket.

    Raises StoreError if they are missing or broken.
    """
    folder = store.folder(f"counts/{counts_id(config)}")
    folder.pull()
    with _readable(folder.path / COUNTS) as path:
        return ThresholdCounts.load(path)


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """Raise StoreError, with its remedy, if a file is missing or broken."""
    try:
        yield path
    except BROKEN_ZIP as error:
        let_through(error, path)
        raise StoreError(
            f"{path}: cannot be read ({error}); delete {path.parent} and run its table again"
        ) from None


def count_images(counts: ThresholdCounts, *, fixed: float, best: float) -> RunImageCounts:
    """Return a run's counts at its two thresholds."""
    return RunImageCounts(
        counts.image_ids,
        ImageCounts(*counts.per_image(fixed)),
        ImageCounts(*counts.per_image(best)),
    )


def save_run_counts(folder: Path, counts: RunImageCounts) -> None:
    """Write a run's image_counts.npz."""
    save_image_counts(folder, counts.image_ids, {n: getattr(counts, n) for n in THRESHOLDS})


def save_image_counts(
    folder: Path, image_ids: Sequence[str], counts: Mapping[str, ImageCounts]
) -> None:
    """Write image_counts.npz, compressed and without pickle: image_ids, fixed_intersection, ...

    counts: by name, of the images in this order.
    """
    arrays = {f"{name}_{part}": getattr(counts[name], part) for name in counts for part in PARTS}
    with whole_or_absent(folder / FILE_NAME) as partial, partial.open("wb") as file:
        np.savez_compressed(file, image_ids=np.array(image_ids), **arrays)


def load_image_counts(run: Folder, name: str) -> tuple[tuple[str, ...], ImageCounts]:
    """Read (image ids [N], counts [N, L]) of a finished folder: a threshold's, or PREDICTED.

    Raises StoreError if the folder is not finished, or its file is missing or broken.
    """
    path = run.path / FILE_NAME
    if not path.exists() and run.result() is None:
        raise StoreError(f"{run.path}: not finished; run its table first")
    with _readable(path), open_file(path) as file, np.load(file, allow_pickle=False) as data:
        counts = ImageCounts(*(data[f"{name}_{part}"] for part in PARTS))
        return tuple(data["image_ids"].tolist()), counts
