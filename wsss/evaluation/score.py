"""The figures of a set of pseudo-labels, and whether choosing each saw pixel ground truth."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsss.basics.printable import counted
from wsss.config import LabelsConfig
from wsss.data.errors import DataError
from wsss.evaluation.confusion import ThresholdCounts, iou_per_label, mean_iou, threshold_index


@dataclass(frozen=True)
class Score:
    """mIoU and per-class IoU in percent, as papers print them.

    mIoU is the mean over the labels that occur in masks or label maps.
    """

    miou_fixed: float
    """At the fixed background score: choosing it saw no pixel ground truth."""
    miou_best: float
    """At the best threshold of the searched range: choosing it saw the pixel ground truth."""
    miou_held_out: float | None
    """Two-fold cross-fitted: the threshold is chosen on one half of the images and the other half
    is scored with it, then the halves are swapped; the mean of the two. Choosing it saw the pixel
    ground truth of other images only. A hash of the image id fixes the halves. It can be above
    `miou_best`: the mean of two mIoUs is not the mIoU of all pixels together, and a class that a
    half lacks does not count there. None if a half is empty or has no valid pixel."""
    held_out_thresholds: list[float]
    """The two thresholds so chosen, that of the first half first; empty without `miou_held_out`."""
    best_threshold: float
    fixed_threshold: float
    precision_fixed: float | None
    """Percent of pixels labelled foreground that hold any foreground class; None if none are."""
    recall_fixed: float | None
    """Percent of foreground pixels labelled foreground: low when CAMs under-cover objects."""
    iou_fixed: list[float | None]
    """Per label, background first; None for a label that does not occur."""
    iou_best: list[float | None]
    curve: list[tuple[float, float]]
    """(threshold, mIoU) over the whole grid."""


def score_counts(counts: ThresholdCounts, labels: LabelsConfig) -> Score:
    """Score counted pixels at the fixed and at the best threshold.

    Raises DataError if there are no pixels.
    """
    if not counts.counts.any():
        raise DataError(
            f"no pixel to score in {counted(len(counts.image_ids), 'image')}: masks are 255 all "
            "over; give another split"
        )
    confusions = counts.confusions()  # [T, L, L]
    curve = 100 * mean_iou(confusions)  # [T]
    fixed = threshold_index(counts.thresholds, labels.background_score)
    best = best_index(curve, counts, labels)
    held_out = cross_fitted(counts, labels)
    found = confusions[fixed][1:, 1:].sum()  # pixels that are and are labelled foreground
    return Score(
        miou_fixed=float(curve[fixed]),
        miou_best=float(curve[best]),
        miou_held_out=float(np.mean([miou for _, miou in held_out])) if held_out else None,
        held_out_thresholds=[threshold for threshold, _ in held_out],
        best_threshold=round(float(counts.thresholds[best]), 6),
        fixed_threshold=labels.background_score,
        precision_fixed=_percent(found, confusions[fixed][:, 1:].sum()),
        recall_fixed=_percent(found, confusions[fixed][1:].sum()),
        iou_fixed=_percents(iou_per_label(confusions[fixed])),
        iou_best=_percents(iou_per_label(confusions[best])),
        curve=[
            (round(float(t), 6), round(float(value), 4))
            for t, value in zip(counts.thresholds, curve, strict=True)
        ],
    )


def best_index(curve: NDArray[np.float64], counts: ThresholdCounts, labels: LabelsConfig) -> int:
    """Return where a curve [T] is highest within `threshold_range`; the first of equals."""
    low, high = (threshold_index(counts.thresholds, t) for t in labels.threshold_range)
    return low + int(curve[low : high + 1].argmax())


def cross_fitted(counts: ThresholdCounts, labels: LabelsConfig) -> list[tuple[float, float]]:
    """Return (threshold chosen on one half, mIoU of the other in percent), then the halves swapped.

    Empty if a half holds no valid pixel.
    """
    first = np.array([in_first_half(image_id) for image_id in counts.image_ids])
    halves = [counts.of_images(half) for half in (first, ~first)]
    if any(half.counts.sum() == 0 for half in halves):
        return []
    curves = [100 * mean_iou(half.confusions()) for half in halves]  # [T] each
    chosen = [best_index(curve, counts, labels) for curve in curves]
    return [
        (round(float(counts.thresholds[at]), 6), float(other[at]))
        for at, other in zip(chosen, reversed(curves), strict=True)
    ]


def in_first_half(image_id: str) -> bool:
    """Whether an image is in the first half: by its id alone, so equally in every data set."""
    return hashlib.sha256(f"threshold half:{image_id}".encode()).digest()[0] % 2 == 0


def _percent(part: np.int64, whole: np.int64) -> float | None:
    return float(100 * part / whole) if whole else None


def _percents(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(100 * float(value), 4) for value in values]
