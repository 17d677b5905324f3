"""Image noise against loops over drawn images and over simulated sets of images."""

import numpy as np
import pytest

from sweeps.evidence.images import ImageCounts, percentiles, resample_counts, resampled_mious


def random_counts(rng_seed: int) -> ImageCounts:
    """Counts of 12 images that show one to all of 4 labels each."""
    rng = np.random.default_rng(rng_seed)
    union = rng.integers(1, 40_000, (12, 4))
    union *= rng.random(union.shape) < 0.6
    union[:, 0] += 1
    return ImageCounts(rng.binomial(union, 0.5), union)


def loop_miou(counts: ImageCounts, images: list[int]) -> float:
    """mIoU of a list of images, in exact integers until the ratio."""
    ious = []
    for label in range(counts.union.shape[1]):
        inside = sum(int(counts.intersection[i, label]) for i in images)
        either = sum(int(counts.union[i, label]) for i in images)
        if either > 0:
            ious.append(inside / either)
    return 100 * sum(ious) / len(ious)


def test_resampled_mious_are_those_of_a_loop_over_the_drawn_images() -> None:
    runs, drawn = [random_counts(0), random_counts(1)], resample_counts(12)
    found = resampled_mious(runs, drawn)
    for run, mious in zip(runs, found, strict=True):
        for at in range(0, 2000, 7):
            images = np.repeat(np.arange(12), drawn[at]).tolist()
            assert mious[at] == pytest.approx(loop_miou(run, images), rel=1e-12)


def test_each_resample_draws_as_many_images_as_there_are_each_equally_often() -> None:
    counts = resample_counts(400).astype(np.int64)
    assert (counts.sum(1) == 400).all()
    # A count is binomial(400, 1/400): mean 1, variance .9975; over 2000 resamples SE .0223.
    assert counts.mean(0) == pytest.approx(np.ones(400), abs=5 * 0.0223)
    assert counts.var(0).mean() == pytest.approx(0.9975, abs=0.01)


def test_resamples_leave_a_rare_label_out_where_it_was_not_drawn() -> None:
    union = np.array([[100, 1], [100, 0], [100, 0]])
    inside = np.array([[50, 1], [50, 0], [50, 0]])
    counts, drawn = ImageCounts(inside, union), resample_counts(3)[:200]
    absent = drawn[:, 0] == 0
    assert absent.any()
    assert not absent.all()
    assert resampled_mious([counts], drawn)[0] == pytest.approx(np.where(absent, 50.0, 75.0))
    void = ImageCounts(union[1:] * [[1], [0]], union[1:] * [[1], [0]])
    assert set(resampled_mious([void], resample_counts(2))[0]) == {0.0, 100.0}


def test_percentiles_of_a_ramp_are_its_ends() -> None:
    assert percentiles(np.arange(201)) == pytest.approx((5.0, 195.0))
