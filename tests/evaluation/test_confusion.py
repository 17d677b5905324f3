"""Threshold curves against a pass per threshold and pixel."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import reference

from wsss.config import LabelsConfig
from wsss.data.errors import DataError
from wsss.evaluation.confusion import (
    ThresholdCounts,
    collect,
    count_image,
    mean_iou,
    threshold_grid,
    threshold_index,
)
from wsss.evaluation.score import score_counts

Image = tuple[np.ndarray, tuple[int, ...], np.ndarray]
"""CAMs [P, H, W], the P classes, mask [H, W]."""


def random_image(rng_seed: int, num_labels: int = 6) -> Image:
    """An image whose CAMs hold ties, zeros and values on the grid, and whose mask ignores some."""
    rng = np.random.default_rng(rng_seed)
    labels = tuple(sorted(rng.choice(num_labels - 1, rng.integers(1, 4), replace=False).tolist()))
    shape = tuple(rng.integers(3, 9, 2).tolist())
    cams = rng.random((len(labels), *shape)).astype(np.float32) ** 2
    on_grid = np.round(cams, 2).astype(np.float32)
    cams = np.where(rng.random(cams.shape) < 0.5, on_grid, cams)
    cams[:, 0, 0] = 0.0
    cams[:, 1, 1] = cams[0, 1, 1]  # a tie of all classes
    known = [0, *(k + 1 for k in labels), 255]
    mask = rng.choice(known, shape).astype(np.uint8)
    return cams, labels, mask


def count(images: list[Image], thresholds: np.ndarray, num_labels: int = 6) -> ThresholdCounts:
    """Counts of images that are named image0, image1, ..."""
    return collect(
        [
            (f"image{index}", *count_image(cams, labels, mask, thresholds, num_labels))
            for index, (cams, labels, mask) in enumerate(images)
        ],
        thresholds,
        num_labels,
    )


def confusion_at(images: list[Image], threshold: np.float32, num_labels: int) -> np.ndarray:
    return sum(
        reference.confusion(mask, reference.label_map(cams, labels, threshold), num_labels)
        for cams, labels, mask in images
    )


def overlap(confusions: np.ndarray) -> np.ndarray:
    """[..., L, L] -> intersection and union of each label, [2, ..., L]."""
    both = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.array([both, confusions.sum(-1) + confusions.sum(-2) - both])


def test_the_grid_holds_every_hundredth_and_the_fixed_score() -> None:
    hundredths = [np.float32(i / 100) for i in range(100)]
    assert threshold_grid(0.15).tolist() == hundredths
    for score in (0.155, 0.0049, 1.0):
        grid = threshold_grid(score)
        assert grid.dtype == np.float32
        assert grid.tolist() == sorted([*hundredths, np.float32(score)])
        assert grid[threshold_index(grid, score)] == np.float32(score)


def test_cams_of_another_size_than_the_mask_and_those_of_broken_weights_are_refused() -> None:
    cams, grid = np.zeros((1, 4, 5), np.float32), threshold_grid(0.15)
    with pytest.raises(ValueError, match=r"\(4, 5\) pixels, mask of \(5, 4\)"):
        count_image(cams, (0,), np.zeros((5, 4), np.uint8), grid, 3)
    cams[0, 3, 2] = np.nan
    with pytest.raises(
        DataError, match=r"from nan to nan, .*train it again with a lower train\.lr"
    ):
        count_image(cams, (0,), np.zeros((4, 5), np.uint8), grid, 3)


def test_masks_without_a_pixel_to_score_are_an_error() -> None:
    nothing = np.full((1, 4), 255, np.uint8)
    counts = count([(np.zeros((1, 1, 4), np.float32), (0,), nothing)], threshold_grid(0.15), 3)
    with pytest.raises(DataError, match="no pixel to score in 1 image:"):
        score_counts(counts, LabelsConfig())


def test_counts_survive_a_round_trip_without_pickle(tmp_path: Path) -> None:
    counts = count([random_image(seed) for seed in range(3)], threshold_grid(0.155))
    counts.save(tmp_path / "counts.npz")
    loaded = ThresholdCounts.load(tmp_path / "counts.npz")
    assert loaded.image_ids == ("image0", "image1", "image2")
    assert loaded.num_labels == 6
    for name in ("thresholds", "image_index", "codes", "counts"):
        expected, found = getattr(counts, name), getattr(loaded, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_a_counts_file_with_pickled_contents_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "counts.npz", thresholds=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        ThresholdCounts.load(tmp_path / "counts.npz")


def test_images_are_kept_in_the_order_of_their_ids_whoever_counted_them_first() -> None:
    parts = []
    thresholds = threshold_grid(0.15)
    for seed, name in ((0, "c"), (1, "a"), (2, "b")):
        parts.append((name, *count_image(*random_image(seed), thresholds, 6)))
    counts = collect(parts, thresholds, 6)
    again = collect(parts[::-1], thresholds, 6)
    assert counts.image_ids == again.image_ids == ("a", "b", "c")
    np.testing.assert_array_equal(counts.codes, again.codes)
    expected = [confusion_at([random_image(seed)], np.float32(0.15), 6) for seed in (1, 2, 0)]
    np.testing.assert_array_equal(counts.per_image(0.15), overlap(np.array(expected)))


def test_the_score_reads_the_curve_at_the_fixed_and_at_the_best_threshold() -> None:
    images = [random_image(seed) for seed in range(4)]
    labels = LabelsConfig(background_score=0.155, threshold_range=(0.2, 0.6))
    thresholds = threshold_grid(0.155)
    score = score_counts(count(images, thresholds), labels)
    curve = [100 * reference.miou(confusion_at(images, t, 6)) for t in thresholds]
    assert [t for t, _ in score.curve] == pytest.approx([float(t) for t in thresholds], abs=1e-6)
    assert [value for _, value in score.curve] == pytest.approx(curve, abs=1e-4)
    fixed = confusion_at(images, np.float32(0.155), 6)
    assert score.fixed_threshold == 0.155
    assert score.miou_fixed == pytest.approx(100 * reference.miou(fixed))
    best = max(range(21, 62), key=lambda index: curve[index])  # .20 to .60, behind the .155
    assert score.best_threshold == pytest.approx(float(thresholds[best]), abs=1e-6)
    assert score.miou_best == pytest.approx(curve[best])
    for found, matrix in (
        (score.iou_fixed, fixed),
        (score.iou_best, confusion_at(images, thresholds[best], 6)),
    ):
        assert found == [
            None if value is None else pytest.approx(100 * value, abs=1e-4)
            for value in reference.ious(matrix)
        ]


def test_the_best_threshold_is_sought_in_a_range_that_includes_both_ends() -> None:
    # Truth is the object in 2 of 4 pixels, whose CAMs are above .30; the others are at .30.
    cams = np.array([[[0.9, 0.8, 0.3, 0.3]]], np.float32)
    counts = count([(cams, (0,), np.array([[1, 1, 0, 0]], np.uint8))], threshold_grid(0.15), 2)
    for low, high, best, miou in (
        (0.1, 0.3, 0.3, 100.0),  # reached at the upper end
        (0.3, 0.5, 0.3, 100.0),  # and at the lower; of equals, the first
        (0.79, 0.8, 0.79, 100.0),
        (0.8, 0.95, 0.8, 100 * (2 / 3 + 1 / 2) / 2),
        (0.29, 0.29, 0.29, 25.0),
    ):
        score = score_counts(counts, LabelsConfig(threshold_range=(low, high)))
        assert (score.best_threshold, score.miou_best) == (best, pytest.approx(miou))


def test_precision_and_recall_are_of_foreground_against_background() -> None:
    # 6 pixels at threshold .15: truth 0 0 1 1 2 2, label 1 0 1 2 0 2.
    cams = np.array([[[0.9, 0.1, 0.9, 0.2, 0, 0.3]], [[0.1, 0, 0.1, 0.8, 0.15, 0.9]]], np.float32)
    mask = np.array([[0, 0, 1, 1, 2, 2]], np.uint8)
    score = score_counts(count([(cams, (0, 1), mask)], threshold_grid(0.15), 3), LabelsConfig())
    assert score.precision_fixed == 75.0  # 3 of the 4 labelled foreground hold an object
    assert score.recall_fixed == 75.0  # 3 of the 4 foreground pixels are found
    assert score.iou_fixed == [33.3333, 33.3333, 33.3333]
    nothing = score_counts(
        count([(0 * cams, (0, 1), mask)], threshold_grid(0.15), 3), LabelsConfig()
    )
    assert nothing.precision_fixed is None
    assert nothing.recall_fixed == 0.0


@pytest.mark.parametrize("thresholds", [[0.0], [1.0], [0.25, 0.5], [0.0, 0.1, 0.25, 0.75, 1.0]])
@pytest.mark.parametrize("seed", range(0, 16, 2))
def test_any_small_case_equals_one_pass_per_threshold(seed: int, thresholds: list[float]) -> None:
    images, grid = [random_image(seed), random_image(seed + 1)], np.array(thresholds, np.float32)
    counts = count(images, grid)
    for found, threshold in zip(counts.confusions(), grid, strict=True):
        expected = confusion_at(images, threshold, 6)
        np.testing.assert_array_equal(found, expected)
        each = [confusion_at([image], threshold, 6) for image in images]
        np.testing.assert_array_equal(counts.per_image(threshold), overlap(np.array(each)))
        assert mean_iou(found) == pytest.approx(reference.miou(expected), rel=1e-12)


def test_counts_of_chosen_images_are_those_of_counting_them_alone() -> None:
    counts = count([random_image(seed) for seed in range(4)], threshold_grid(0.15))
    for chosen in ([True, False, False, True], [False] * 4, [True] * 4, [False, True, True, False]):
        part = counts.of_images(np.array(chosen))
        kept = [index for index, keep in enumerate(chosen) if keep]
        assert part.image_ids == tuple(f"image{index}" for index in kept)
        for position, index in enumerate(kept):
            expected = confusion_at([random_image(index)], np.float32(0.3), 6)
            np.testing.assert_array_equal(
                np.array(part.per_image(0.3))[:, position], overlap(expected)
            )


def test_the_held_out_figure_scores_each_half_at_the_threshold_of_the_other() -> None:
    images, thresholds = [random_image(seed) for seed in range(12)], threshold_grid(0.15)
    labels = LabelsConfig(threshold_range=(0.1, 0.7))
    halves: tuple[list[int], list[int]] = ([], [])
    for index in range(12):
        digest = hashlib.sha256(f"threshold half:image{index}".encode()).hexdigest()
        halves[int(digest[:2], 16) % 2].append(index)
    curves = [
        [reference.miou(confusion_at([images[i] for i in half], t, 6)) for t in thresholds]
        for half in halves
    ]
    chosen = [max(range(10, 71), key=lambda t, curve=curve: curve[t]) for curve in curves]  # type: ignore[misc]
    expected = [100 * curves[1][chosen[0]], 100 * curves[0][chosen[1]]]
    score = score_counts(count(images, thresholds), labels)
    assert score.miou_held_out == pytest.approx(sum(expected) / 2)
    assert score.held_out_thresholds == pytest.approx([t / 100 for t in chosen])
