"""Area under the threshold curve: how good a set of maps is, whatever threshold cuts them."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from wsss.config import LabelsConfig


def area_under_curve(curve: Sequence[Sequence[float]], labels: LabelsConfig) -> float:
    """Return the mean mIoU in percent over the thresholds of `labels.threshold_range`.

    curve: [T] of (threshold, mIoU in percent), ascending. The area by the trapezoid rule between
    the curve's thresholds nearest to both ends of the range, over their distance; for a range of
    one threshold, the mIoU there. Pixel ground truth scores it, and no threshold is chosen.
    """
    thresholds = [threshold for threshold, _ in curve]
    low, high = (_nearest(thresholds, end) for end in labels.threshold_range)
    if low == high:
        return float(curve[low][1])
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve[low : high + 1]))
    return area / (curve[high][0] - curve[low][0])


def _nearest(thresholds: list[float], end: float) -> int:
    """Return which of the ascending thresholds is nearest, of two the lower."""
    above = bisect_left(thresholds, end)
    near = range(max(above - 1, 0), min(above + 1, len(thresholds)))
    return min(near, key=lambda at: abs(thresholds[at] - end))
