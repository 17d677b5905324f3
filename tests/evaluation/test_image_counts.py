"""Counts per image at a run's two thresholds: right, and refused if broken."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from made_up.finished import finish, finished_sweep, made_up_counts

from sweeps.evidence.image_counts import (
    PARTS,
    THRESHOLDS,
    count_images,
    load_image_counts,
    save_run_counts,
)
from sweeps.plan.trials import Trial
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store
from wsss.evaluation.confusion import ThresholdCounts, threshold_grid


@pytest.fixture
def trial() -> Trial:
    return finished_sweep(("VI",), 1).plan.trials[0]


@pytest.fixture
def run(tmp_path: Path, trial: Trial) -> Folder:
    """A finished run."""
    store = Store(tmp_path)
    finish(store, trial, 0.7, num_images=6)
    return store.run(trial.run_id)


def test_intersection_and_union_are_those_of_each_images_confusion() -> None:
    counts = made_up_counts(5, 0.6, rng_seed=1)
    found = count_images(counts, fixed=0.15, best=0.4)
    assert found.image_ids == counts.image_ids
    for part, threshold in ((found.fixed, 0.15), (found.best, 0.4)):
        both, either = counts.per_image(threshold)  # whose test has a slow count
        assert part.intersection.dtype == part.union.dtype == np.int64
        np.testing.assert_array_equal(part.intersection, both)
        np.testing.assert_array_equal(part.union, either)


def test_many_classes_need_no_matrix_of_labels_for_each_image() -> None:
    num_images, num_labels, thresholds = 500, 81, threshold_grid(0.15)
    index = np.arange(num_images, dtype=np.uint32)
    codes = index % (num_labels**2 * (len(thresholds) + 1))
    names = tuple(f"image{number:03d}" for number in index)
    counts = ThresholdCounts(thresholds, num_labels, names, index, codes, np.ones_like(codes))
    tracemalloc.start()
    try:
        count_images(counts, fixed=0.15, best=0.4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * num_images * num_labels**2


def test_they_sum_to_the_miou_of_the_run(run: Folder) -> None:
    saved = run.result()
    fixed, best = (load_image_counts(run, threshold)[1] for threshold in THRESHOLDS)
    assert fixed.miou() == pytest.approx(saved["miou_fixed"], abs=1e-9)
    assert best.miou() == pytest.approx(saved["miou_best"], abs=1e-9)


def test_what_is_written_is_what_is_read(run: Folder) -> None:
    computed = count_images(made_up_counts(9, 0.6, rng_seed=1), fixed=0.15, best=0.4)
    save_run_counts(run.path, computed)
    for name in THRESHOLDS:
        image_ids, read = load_image_counts(run, name)
        assert image_ids == computed.image_ids
        for part in PARTS:
            first, other = (getattr(found, part) for found in (getattr(computed, name), read))
            np.testing.assert_array_equal(first, other)


def test_broken_or_missing_counts_are_refused_by_file_with_the_remedy(
    run: Folder, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="not finished; run its table"):
        load_image_counts(Folder(tmp_path / "runs" / "nothing"), "fixed")
    (run.path / "image_counts.npz").write_bytes(b"PK broken")
    with pytest.raises(StoreError, match=r"image_counts\.npz: cannot be read .* delete"):
        load_image_counts(run, "fixed")
    (run.path / "image_counts.npz").unlink()
    with pytest.raises(StoreError, match=r"counts\.npz: cannot be read"):
        load_image_counts(run, "best")
