"""Area under the threshold curve, against numbers by hand."""

import pytest

from wsss.config import LabelsConfig
from wsss.evaluation.auc import area_under_curve


def labels(low: float, high: float) -> LabelsConfig:
    return LabelsConfig(threshold_range=(low, high))


def test_thresholds_that_are_not_evenly_spread_count_by_their_distance() -> None:
    curve = [(0.0, 99.0), (0.1, 10.0), (0.15, 30.0), (0.3, 50.0), (0.4, 99.0)]
    # .05 x (10 + 30) / 2 + .15 x (30 + 50) / 2 = 7, over .2
    assert area_under_curve(curve, labels(0.1, 0.3)) == pytest.approx(35)


def test_a_range_of_one_threshold_is_its_miou() -> None:
    curve = [(0.1, 10.0), (0.2, 20.0), (0.3, 70.0)]
    assert area_under_curve(curve, labels(0.2, 0.2)) == 20
