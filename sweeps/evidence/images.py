"""Image noise: how far a mIoU moves with other images of the same kind, for the same networks.

Each resample draws images with replacement and adds up their pixels. How far another training would
move the mIoU is seed noise, see `sweeps.evidence.seeds`; the two are never added up or mixed.

Legend: N images, L labels (21), R resamples, M runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.evidence.seeds import LEVEL, FloatArray, Interval

NUM_RESAMPLES = 2000
CHUNK_WEIGHTS = 2_000_000
"""Image weights per matrix product, so that their float64 copy takes at most 16 MB."""


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Pixel counts per image of one scored trial, which give its mIoU on any set of images."""

    intersection: NDArray[np.int64]
    """[N, L] pixels of a label in both ground truth and pseudo-label."""
    union: NDArray[np.int64]
    """[N, L] pixels of a label in either."""

    @classmethod
    def from_confusions(cls, confusions: NDArray[np.int64]) -> "ImageCounts":
        """Count from one confusion matrix per image: [N, L, L], rows are ground truth."""
        intersection = np.diagonal(confusions, axis1=1, axis2=2).astype(np.int64)
        rows, columns = confusions.sum(2, dtype=np.int64), confusions.sum(1, dtype=np.int64)
        return cls(intersection, rows + columns - intersection)

    @classmethod
    def joined(cls, parts: Sequence["ImageCounts"]) -> "ImageCounts":
        """Return the counts of all images of all parts."""
        inside, either = ([getattr(p, name) for p in parts] for name in ("intersection", "union"))
        return cls(np.concatenate(inside), np.concatenate(either))

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.union)

    def miou(self) -> float:
        """Return the mIoU of all images in percent, over the labels that occur."""
        return float(resampled_mious([self], np.ones((1, self.num_images)))[0, 0])


def resampled_mious(runs: Sequence[ImageCounts], drawn: NDArray[Any]) -> FloatArray:
    """Return the mIoU of runs on the same images in each resample: [M, R], percent.

    Over the labels that occur there; 0 for a resample of images whose masks are 255 all over.
    drawn: as of `resampled_ious`.
    """
    ious = resampled_ious(runs, drawn)
    return np.nansum(ious, 2) / np.maximum(np.isfinite(ious).sum(2), 1)


def resampled_ious(runs: Sequence[ImageCounts], drawn: NDArray[Any]) -> FloatArray:
    """Return the IoU of each label in each resample: [M, R, L], percent.

    NaN where no image that shows the label was drawn. drawn: [R, N] as `resample_counts` returns
    it, the same for every run, so that runs are paired.
    """
    inside = np.stack([run.intersection for run in runs], dtype=np.float64)  # [M, N, L]
    either = np.stack([run.union for run in runs], dtype=np.float64)
    ious = np.full((len(runs), len(drawn), inside.shape[2]), np.nan)
    occurs = np.any(either, axis=0)  # [N, L]
    size = max(1, CHUNK_WEIGHTS // drawn.shape[1])
    for at in range(0, len(drawn), size):
        weights = drawn[at : at + size].T.astype(np.float64, "C")  # [N, size]
        # Label by label over the images that show it: most show two or three of all labels.
        for label in np.flatnonzero(occurs.any(0)):
            shown = occurs[:, label]
            times = weights[shown]
            # Sums below 2^53 are exact in float64.
            part, union = (each[:, shown, label] @ times for each in (inside, either))
            found = ious[:, at : at + size, label]
            np.divide(part, union, out=found, where=union > 0)
    return 100 * ious


def percentiles(resampled: ArrayLike) -> Interval:
    """Return the central interval that holds 95 % of resampled values: [R]."""
    low, high = np.quantile(np.asarray(resampled), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


@lru_cache(maxsize=8)
def resample_counts(num_items: int) -> NDArray[Any]:
    """Return how often each resample holds each item, drawn with replacement: [R, N] unsigned.

    R is NUM_RESAMPLES, and equal numbers of items have equal resamples.
    """
    rng = np.random.default_rng(0)
    counts = np.empty((NUM_RESAMPLES, num_items), np.min_scalar_type(num_items))
    for row in counts:
        drawn = rng.integers(num_items, size=num_items)
        row[:] = np.bincount(drawn, minlength=num_items)
    counts.setflags(write=False)
    return counts
