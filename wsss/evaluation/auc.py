"""Area under the threshold curve: how good a set of maps is, whatever threshold cuts them."""

from collections.abc import Sequence
from itertools import pairwise

from wsss.config import LabelsConfig


def area_under_curve(curve: Sequence[Sequence[float]], labels: LabelsConfig) -> float:
    """Return the mean mIoU in percent over the thresholds of `labels.threshold_range`.

    curve: [T] of (threshold, mIoU in percent), ascending. The area by the trapezoid rule between
    the curve's thresholds nearest to both ends of the range, divided by their distance; for a range
    of one threshold, the mIoU there. Scored with pixel ground truth, but no threshold is chosen.
    """
    low, high = (
        min(range(len(curve)), key=lambda at: abs(curve[at][0] - end))
        for end in labels.threshold_range
    )
    if low == high:
        return float(curve[low][1])
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve[low : high + 1]))
    return area / (curve[high][0] - curve[low][0])
