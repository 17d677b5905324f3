"""Pseudo-label mIoU at every threshold from one pass over the pixels.

For each image the pixels are counted by (ground truth, strongest class, bucket of the strongest
CAM). A pixel is foreground at threshold t if its CAM is above t, so suffix sums over buckets give
the confusion matrix at every threshold at once. The counts are kept per image, for the statistics
over images.

Legend: L labels (background and K classes), T thresholds, N images, H W image size.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.basics.files import open_file, whole_or_absent
from wsss.data.errors import DataError

Counts = NDArray[np.int64]
CountedImage = tuple[str, NDArray[np.uint32], NDArray[np.uint32]]
"""Image id, codes and counts, as `count_image` returns them."""

BLOCK_PIXELS = 32768
"""Counted at a time, so that intermediate arrays stay in the processor's cache."""


def threshold_grid(background_score: float) -> NDArray[np.float32]:
    """Return the thresholds of a curve: 0, .01, ... .99 and the fixed background score."""
    grid = np.arange(100, dtype=np.float32) / np.float32(100)
    exact = np.float32(background_score)
    return grid if np.isclose(grid, exact).any() else np.union1d(grid, exact)


def threshold_index(thresholds: NDArray[np.float32], threshold: float) -> int:
    """Return the index of the nearest threshold of a grid."""
    return int(np.abs(thresholds - np.float32(threshold)).argmin())


class _Buckets:
    """Counts the thresholds below a value, by a table instead of a search.

    [0, 1] is cut into 1,024 cells (a power of two, so float32 holds their edges exactly). The table
    has the number of thresholds below a cell; the few within it are compared with the value.
    """

    CELLS = 1024

    def __init__(self, thresholds: NDArray[np.float32]) -> None:
        edges = np.arange(self.CELLS + 2, dtype=np.float32) / np.float32(self.CELLS)
        below = np.searchsorted(thresholds, edges, side="left")
        self.base = below[:-1]  # [CELLS + 1], the last cell being 1.0 itself
        self.most_in_a_cell = int(np.diff(below).max())
        self.padded = np.append(thresholds, np.float32(np.inf))

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the number of thresholds below each value. values: [N] in [0, 1]."""
        bucket = self.base.take((values * np.float32(self.CELLS)).astype(np.intp))
        for _ in range(self.most_in_a_cell):
            bucket += values > self.padded.take(bucket)
        return bucket


def count_image(
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    mask: NDArray[np.uint8],
    thresholds: NDArray[np.float32],
    num_labels: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Count one image's pixels; ignored pixels (255) do not count.

    cams: [P, H, W] in [0, 1] of the P 0-based classes `labels`; mask: [H, W] in 0..L-1 and 255.
    Returns (codes, counts), sparse and sorted: code = (ground truth * L + label) * (T + 1) +
    bucket, where bucket is the number of thresholds below the pixel's strongest CAM. Raises
    ValueError if the sizes differ, and DataError if a CAM is outside of [0, 1].
    """
    if cams.shape[1:] != mask.shape:
        raise ValueError(f"CAMs of {cams.shape[1:]} pixels, mask of {mask.shape}")
    if not (cams.min() >= 0 and cams.max() <= 1):
        raise DataError(
            f"CAMs from {cams.min()} to {cams.max()}, expected values in [0, 1]; NaN means that "
            "the network's weights are broken: train it again with a lower train.lr"
        )
    num_buckets, num_classes = len(thresholds) + 1, len(labels)
    buckets = _Buckets(thresholds)
    flat = cams.reshape(num_classes, -1)
    truth = np.minimum(mask.ravel(), np.uint8(num_labels))  # ignored: row L, cut off below
    size = num_labels * num_classes * num_buckets
    total = np.zeros(size + num_classes * num_buckets, dtype=np.intp)
    for start in range(0, truth.size, BLOCK_PIXELS):
        block = slice(start, start + BLOCK_PIXELS)
        strongest, place = _strongest(flat[:, block])
        code = truth[block].astype(np.intp)
        code *= num_classes
        code += place
        code *= num_buckets
        code += buckets(strongest)
        total += np.bincount(code, minlength=total.size)
    found = np.flatnonzero(total[:size])
    pair, bucket = np.divmod(found, num_buckets)
    row, place = np.divmod(pair, num_classes)
    label = np.array(labels)[place] + 1
    codes = (row * num_labels + label) * num_buckets + bucket
    order = np.argsort(codes)
    return codes[order].astype(np.uint32), total[found[order]].astype(np.uint32)


def _strongest(cams: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return each pixel's largest CAM and its index; the first of equals. cams: [P, N], P >= 1."""
    largest, place = cams[0], np.zeros(cams.shape[1], dtype=np.uint8)
    for index in range(1, len(cams)):
        np.maximum(place, (cams[index] > largest) * np.uint8(index), out=place)
        largest = np.maximum(largest, cams[index])
    return largest, place


@dataclass(frozen=True)
class ThresholdCounts:
    """The pixel counts of an evaluation set, image by image."""

    thresholds: NDArray[np.float32]
    """[T], ascending."""
    num_labels: int
    image_ids: tuple[str, ...]
    """[N], the order of `image_index`."""
    image_index: NDArray[np.uint32]
    """[M] which image each entry belongs to."""
    codes: NDArray[np.uint32]
    """[M], see `count_image`."""
    counts: NDArray[np.uint32]
    """[M] pixels."""

    def confusions(self) -> Counts:
        """Return the confusion matrix of the whole set at each threshold: [T, L, L].

        Rows are ground truth, columns pseudo-label.
        """
        size = self.num_labels**2 * (len(self.thresholds) + 1)
        total = np.bincount(self.codes, weights=self.counts, minlength=size).astype(np.int64)
        histogram = total.reshape(self.num_labels, self.num_labels, -1)  # [L, L, T + 1]
        # Bucket b is above thresholds 0..b-1, so threshold t keeps the buckets from t + 1 on.
        above = histogram[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]  # [L, L, T]
        confusion = np.moveaxis(above, -1, 0).copy()
        confusion[..., 0] += (histogram.sum((1, 2))[:, None] - above.sum(1)).T
        return confusion

    def per_image(self, threshold: float) -> tuple[Counts, Counts]:
        """Return each image's intersection and union by label, at the nearest threshold.

        [N, L] each, pixels. No [N, L, L]: of 80 classes and 5,000 images, that has 260 MB.
        """
        at = threshold_index(self.thresholds, threshold)
        pair, bucket = np.divmod(self.codes.astype(np.int64), len(self.thresholds) + 1)
        truth, label = np.divmod(pair, self.num_labels)
        label = np.where(bucket > at, label, 0)
        shape = (len(self.image_ids), self.num_labels)
        start = self.image_index.astype(np.int64) * self.num_labels

        def pixels(of: NDArray[np.int64], counts: NDArray[np.uint32]) -> Counts:
            total = np.bincount(start + of, weights=counts, minlength=shape[0] * shape[1])
            return total.astype(np.int64).reshape(shape)  # float64 holds up to 2^53 exactly

        both = pixels(label, np.where(truth == label, self.counts, np.uint32(0)))
        return both, pixels(truth, self.counts) + pixels(label, self.counts) - both

    def of_images(self, chosen: NDArray[np.bool_]) -> "ThresholdCounts":
        """Return the counts of the chosen images alone. chosen: [N]."""
        entries = chosen[self.image_index]
        place = np.cumsum(chosen, dtype=np.uint32) - np.uint32(1)
        return ThresholdCounts(
            self.thresholds,
            self.num_labels,
            tuple(name for name, kept in zip(self.image_ids, chosen, strict=True) if kept),
            place[self.image_index[entries]],
            self.codes[entries],
            self.counts[entries],
        )

    def save(self, path: Path) -> None:
        """Write a compressed .npz, atomically and without pickle."""
        with whole_or_absent(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "ThresholdCounts":
        """Read what `save` wrote."""
        with open_file(path) as file, np.load(file, allow_pickle=False) as data:
            found = {field.name: data[field.name] for field in fields(cls)}
        found |= {"num_labels": int(found["num_labels"])}
        return cls(**found | {"image_ids": tuple(map(str, found["image_ids"]))})


def collect(
    images: list[CountedImage], thresholds: NDArray[np.float32], num_labels: int
) -> ThresholdCounts:
    """Join the counts of many images, sorted by id."""
    images = sorted(images, key=lambda image: image[0])
    sizes = [len(codes) for _, codes, _ in images]
    return ThresholdCounts(
        thresholds,
        num_labels,
        tuple(image_id for image_id, _, _ in images),
        np.repeat(np.arange(len(images), dtype=np.uint32), sizes),
        np.concatenate([codes for _, codes, _ in images]),
        np.concatenate([counts for _, _, counts in images]),
    )


def iou_per_label(confusion: Counts) -> NDArray[np.float64]:
    """Return intersection over union of each label: [..., L, L] -> [..., L], in [0, 1].

    NaN for a label that neither the ground truth nor the pseudo-labels hold.
    """
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    union = confusion.sum(-1) + confusion.sum(-2) - intersection
    return np.divide(intersection, union, out=np.full_like(intersection, np.nan), where=union > 0)


def mean_iou(confusion: Counts) -> NDArray[np.float64]:
    """Return mIoU over the labels that occur: [..., L, L] -> [...], in [0, 1]."""
    return np.nanmean(iou_per_label(confusion), axis=-1)
