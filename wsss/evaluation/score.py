"""The figures of a set of pseudo-labels, each saying whether pixel ground truth chose it."""

from dataclasses import dataclass

import numpy as np

from wsss.config import LabelsConfig
from wsss.evaluation.confusion import ThresholdCounts, iou_per_label, mean_iou, threshold_index


@dataclass(frozen=True)
class Score:
    """mIoU and per-class IoU in percent, as papers print them."""

    miou_fixed: float
    """At the fixed background score, which saw no pixel ground truth."""
    miou_best: float
    """At the best threshold of the searched range: its choice saw the pixel ground truth."""
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
    """Score counted pixels at the fixed and at the best threshold."""
    confusions = counts.confusions()  # [T, L, L]
    curve = 100 * mean_iou(confusions)  # [T]
    low, high = (threshold_index(counts.thresholds, t) for t in labels.threshold_range)
    fixed = threshold_index(counts.thresholds, labels.background_score)
    best = low + int(curve[low : high + 1].argmax())
    found = confusions[fixed][1:, 1:].sum()  # pixels that are and are labelled foreground
    return Score(
        miou_fixed=float(curve[fixed]),
        miou_best=float(curve[best]),
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


def _percent(part: np.int64, whole: np.int64) -> float | None:
    return float(100 * part / whole) if whole else None


def _percents(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(100 * float(value), 4) for value in values]
