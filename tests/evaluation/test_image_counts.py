"""Counts per image at a run's two thresholds: right, and refused if broken."""

from pathlib import Path

import numpy as np
import pytest
import reference
from finished import finish, finished_sweep, made_up_counts

from sweeps.evidence.image_counts import (
    PARTS,
    THRESHOLDS,
    count_images,
    load_image_counts,
    save_image_counts,
)
from sweeps.plan.trials import Trial
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store
from wsss.evaluation.confusion import ThresholdCounts


@pytest.fixture
def trial() -> Trial:
    return finished_sweep(("VI",), 1).plan.trials[0]


@pytest.fixture
def run(tmp_path: Path, trial: Trial) -> Folder:
    """A finished run."""
    store = Store(tmp_path)
    finish(store, trial, 0.7, num_images=6)
    return store.run(trial.run_id)


def slow_counts(counts: ThresholdCounts, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union [N, L], entry by entry."""
    shape = (len(counts.image_ids), counts.num_labels)
    both, truth_or, label_or = (np.zeros(shape, np.int64) for _ in range(3))
    entries = zip(counts.image_index, counts.codes, counts.counts, strict=True)
    for image, code, pixels in entries:
        pair, bucket = divmod(int(code), len(counts.thresholds) + 1)
        truth, label = divmod(pair, counts.num_labels)
        above = sum(t <= np.float32(threshold) + 1e-7 for t in counts.thresholds)
        label = label if bucket > above - 1 else 0
        truth_or[image, truth] += pixels
        label_or[image, label] += pixels
        both[image, truth] += pixels * (truth == label)
    return both, truth_or + label_or - both


def test_intersection_and_union_are_those_of_a_slow_count() -> None:
    counts = made_up_counts(5, 0.6, rng_seed=1)
    found = count_images(counts, fixed=0.15, best=0.4)
    assert found.image_ids == counts.image_ids
    for part, threshold in ((found.fixed, 0.15), (found.best, 0.4)):
        both, either = slow_counts(counts, threshold)
        assert part.intersection.dtype == part.union.dtype == np.int64
        np.testing.assert_array_equal(part.intersection, both)
        np.testing.assert_array_equal(part.union, either)


def test_they_sum_to_the_miou_of_the_run(run: Folder) -> None:
    saved = run.metrics()
    fixed, best = (load_image_counts(run, threshold)[1] for threshold in THRESHOLDS)
    assert saved is not None
    assert fixed.miou() == pytest.approx(saved["miou_fixed"], abs=1e-9)
    assert best.miou() == pytest.approx(saved["miou_best"], abs=1e-9)
    counts = made_up_counts(6, 0.7, rng_seed=0)
    total = counts.image_confusions(0.15).sum(0)
    assert fixed.miou() == pytest.approx(100 * reference.miou(total), abs=1e-9)


def test_what_is_written_is_what_is_read(run: Folder) -> None:
    computed = count_images(made_up_counts(9, 0.6, rng_seed=1), fixed=0.15, best=0.4)
    save_image_counts(run.path, computed)
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
