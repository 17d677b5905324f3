"""Image noise: how far a mIoU moves with other images of the same kind, for the same networks.

Each resample draws images with replacement and adds up their pixels. How far another training would
move the mIoU is seed noise, see `sweeps.evidence.seeds`; the two are never added up or mixed. Only
`argmax_stability` resamples seeds.

Legend: N images, L labels (21), R resamples, S seeds, M runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.evidence.seeds import LEVEL, ROUNDING, FloatArray, Interval, check_level

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

    def __post_init__(self) -> None:
        for name in ("intersection", "union"):
            object.__setattr__(self, name, _frozen_counts(getattr(self, name), name))
        if self.intersection.shape != self.union.shape or self.union.ndim != 2:
            raise ValueError(
                f"intersection {self.intersection.shape} and union {self.union.shape}: both must "
                "be [images, labels]"
            )
        if (self.intersection < 0).any() or (self.intersection > self.union).any():
            raise ValueError("counts need 0 <= intersection <= union; is the order right?")

    @classmethod
    def from_confusions(cls, confusions: NDArray[np.int64]) -> "ImageCounts":
        """Count from one confusion matrix per image: [N, L, L], rows are ground truth."""
        if confusions.ndim != 3 or confusions.shape[1] != confusions.shape[2]:
            raise ValueError(f"confusions of {confusions.shape}; give [images, labels, labels]")
        intersection = np.diagonal(confusions, axis1=1, axis2=2).astype(np.int64)
        rows, columns = confusions.sum(2, dtype=np.int64), confusions.sum(1, dtype=np.int64)
        return cls(intersection, rows + columns - intersection)

    @property
    def num_images(self) -> int:
        """N."""
        return len(self.union)

    def miou(self) -> float:
        """Return the mIoU of all images in percent, over the labels that occur."""
        every_image = np.ones((self.num_images, 1))
        return float(_mious(every_image, [self])[0, 0])


class Resamples:
    """R draws of N images with replacement, the same for every run on these images.

    `counts`: [R, N], how often a resample holds an image. Raises ValueError for fewer than two
    images, which tell nothing about others.
    """

    def __init__(
        self, num_images: int, num_resamples: int = NUM_RESAMPLES, rng_seed: int = 0
    ) -> None:
        if num_images < 2:
            raise ValueError(f"{num_images} image cannot show image noise; score two or more")
        self.counts = resample_counts(num_images, num_resamples, rng_seed)
        self._known: WeakKeyDictionary[ImageCounts, FloatArray] = WeakKeyDictionary()

    def mious(self, run: ImageCounts) -> FloatArray:
        """Return a run's mIoU in each resample: [R], percent. Cached while the run exists.

        Raises ValueError for another number of images, or a resample without labelled pixels.
        """
        return self._all_mious([run])[0]

    def mean_mious(self, runs: Sequence[ImageCounts]) -> FloatArray:
        """Return the mean-over-seeds mIoU in each resample, the same images for all: [R]."""
        return np.mean(self._all_mious(runs), axis=0)

    def _all_mious(self, runs: Sequence[ImageCounts]) -> list[FloatArray]:
        """Return each run's mIoU in each resample: [R] each, computed together."""
        num_images = self.counts.shape[1]
        for run in runs:
            if run.num_images != num_images:
                raise ValueError(
                    f"a run over {run.num_images} images, resamples of {num_images}: "
                    "score all runs on the same images"
                )
        new = [run for run in dict.fromkeys(runs) if run not in self._known]
        if new:
            size = max(1, CHUNK_WEIGHTS // num_images)
            chunks = (self.counts[at : at + size].T for at in range(0, len(self.counts), size))
            found = np.hstack([_mious(chunk.astype(np.float64, "C"), new) for chunk in chunks])
            found.setflags(write=False)
            self._known.update(zip(new, found, strict=True))
        return [self._known[run] for run in runs]


def percentiles(resampled: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the central interval that holds a share `level` of resampled values: [R]."""
    check_level(level)
    low, high = np.quantile(np.asarray(resampled), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def argmax_stability_over_images(mious: ArrayLike) -> FloatArray:
    """Return each cell's share of image resamples in which its mIoU is the largest (image noise).

    mious: [cells, R], e.g. `Resamples.mean_mious` per cell. Ties are split. Shares add up to 1.
    """
    array = np.asarray(mious, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"mIoUs of shape {array.shape}; give finite [cells, resamples]")
    largest = array >= array.max(0) - ROUNDING  # [cells, R]
    return (largest / largest.sum(0)).mean(1)


def argmax_stability(values: ArrayLike, *, num_resamples: int = NUM_RESAMPLES) -> FloatArray:
    """Return each cell's share of seed resamples in which its mean is the largest (seed noise).

    values: [S, cells] percent; a seed is drawn with all its cells, as a block. Ties are split.
    Two or three seeds have only 3 or 10 different resamples, so shares are coarse and too
    confident. Raises ValueError for one seed.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(
            f"values of shape {array.shape}: seed noise needs [two seeds or more, cells]; for one "
            "seed use argmax_stability_over_images"
        )
    weights = resample_counts(len(array), num_resamples, rng_seed=0) / len(array)  # [R, S]
    return argmax_stability_over_images((weights @ array).T)


@lru_cache(maxsize=8)
def resample_counts(num_items: int, num_resamples: int, rng_seed: int) -> NDArray[Any]:
    """Return how often each resample holds each item, drawn with replacement: [R, N] unsigned."""
    rng = np.random.default_rng(rng_seed)
    counts = np.empty((num_resamples, num_items), np.min_scalar_type(num_items))
    for row in counts:
        drawn = rng.integers(num_items, size=num_items)
        row[:] = np.bincount(drawn, minlength=num_items)
    counts.setflags(write=False)
    return counts


def _mious(weights: FloatArray, runs: Sequence[ImageCounts]) -> FloatArray:
    """[N, R] image weights -> [M, R] percent, for M runs. Sums below 2^53 are exact in float64.

    Label by label over the images that show it: most images show two or three of all labels.
    """
    inside = np.stack([run.intersection for run in runs], dtype=np.float64)  # [M, N, L]
    either = np.stack([run.union for run in runs], dtype=np.float64)
    ious, num_labels = np.zeros((2, len(runs), weights.shape[1]))  # [M, R] each
    occurs = np.any(either, axis=0)  # [N, L]
    for label in np.flatnonzero(occurs.any(0)):
        shown = occurs[:, label]
        drawn = weights[shown]  # [images that show it, R]
        union = either[:, shown, label] @ drawn
        ious += inside[:, shown, label] @ drawn / np.maximum(union, 1)  # 0 / 1 where it is absent
        num_labels += union > 0  # a resample may lack a rare label
    if (num_labels == 0).any():
        raise ValueError("images without a labelled pixel; leave those images out")
    mious: FloatArray = 100 * ious / num_labels
    return mious


def _frozen_counts(values: Any, name: str) -> NDArray[np.int64]:
    """Return a read-only copy, so that what is cached about a run stays true."""
    if not np.issubdtype(np.asarray(values).dtype, np.integer):
        raise ValueError(f"{name} is {np.asarray(values).dtype}; give whole pixel counts")
    counts = np.array(values, dtype=np.int64)
    counts.setflags(write=False)
    return counts
