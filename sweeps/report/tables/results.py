"""The results of a sweep's trials, read once from the store: scores, failures, image counts."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.evidence.image_counts import Threshold, load_image_counts
from sweeps.evidence.images import (
    ImageCounts,
    percentiles,
    resample_counts,
    resampled_ious,
    resampled_mious,
)
from sweeps.evidence.seeds import Interval
from sweeps.plan.states import read_states
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.words import fixed_score
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.evaluation.auc import area_under_curve


class Measure(StrEnum):
    """Which mIoU a report compares: they differ in how the background threshold is chosen."""

    fixed = "fixed"
    held_out = "held-out"
    best = "best"
    auc = "auc"

    @property
    def heading(self) -> str:
        """Its name as a column heading."""
        return "AUC" if self is Measure.auc else self.value

    def describe(self, sweep: Sweep) -> str:
        """Return what the mIoU is, and whether its threshold was chosen with pixel ground truth."""
        low, high = sweep.base.labels.threshold_range
        return {
            "fixed": "pseudo-label mIoU in % at the fixed background score "
            f"{fixed_score(sweep)}, chosen without pixel ground truth",
            "held-out": "pseudo-label mIoU in % at a threshold chosen with the pixel ground truth "
            "of the other half of the scored images",
            "best": "pseudo-label mIoU in % at each training's best threshold, chosen with the "
            "pixel ground truth that scores it",
            "auc": f"mean pseudo-label mIoU in % over all thresholds from {low:g} to {high:g} "
            "(AUC, area under the threshold curve); no threshold is chosen",
        }[self.value]


class Results:
    """The outcomes of a plan's trials, and image resamples of their mIoU.

    All trials use the same resamples of images, so that differences are paired.
    """

    def __init__(self, store: Store, trials: Sequence[Trial], measure: Measure) -> None:
        self.store, self.measure = store, measure
        self.trials = {trial.run_id: trial for trial in trials}
        self.states = read_states(store, trials)
        self.mious = {
            run: _mious(self.states[run].metrics, t.config) for run, t in self.trials.items()
        }
        """By run id and measure; empty for a trial that is not finished."""
        self._resampled: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, tuple[tuple[str, ...], ImageCounts]] = {}

    def values(self, run_ids: Mapping[int, str], measure: Measure) -> dict[int, float]:
        """Return seed -> mIoU of the finished trials that have a measure. run_ids: by seed."""
        found = {seed: self.mious[run].get(measure) for seed, run in run_ids.items()}
        return {seed: miou for seed, miou in found.items() if miou is not None}

    def epochs(self, run_id: str) -> list[dict[str, Any]]:
        """Return the records of a trial's training, one per epoch."""
        return self.store.cam(self.trials[run_id].cam_id).epochs()

    def counts(self, run_id: str) -> tuple[tuple[str, ...], ImageCounts] | None:
        """Return (image ids, counts per image) of a finished trial.

        At the measure's threshold; None for held-out and AUC, which have no single threshold.
        """
        if self.measure in (Measure.held_out, Measure.auc) or self.states[run_id].metrics is None:
            return None
        if run_id not in self._counts:
            threshold: Threshold = "fixed" if self.measure is Measure.fixed else "best"
            self._counts[run_id] = load_image_counts(self.store.run(run_id), threshold)
        return self._counts[run_id]

    def resampled(self, run_ids: Sequence[str]) -> NDArray[np.float64] | None:
        """Return the mean over trials of mIoU in each resample of images: [R], percent.

        None if a trial has no counts, if the trials scored different images, or only one image.
        """
        found = [counts for run_id in run_ids if (counts := self.counts(run_id))]
        if len(found) < len(run_ids) or len({image_ids for image_ids, _ in found}) != 1:
            return None
        if found[0][1].num_images < 2:
            return None
        new = {run: counts for run, (_, counts) in zip(run_ids, found, strict=True)}
        new = {run: counts for run, counts in new.items() if run not in self._resampled}
        if new:
            drawn = resample_counts(found[0][1].num_images)
            mious = resampled_mious(list(new.values()), drawn)
            self._resampled |= zip(new, mious, strict=True)
        return np.mean([self._resampled[run] for run in run_ids], axis=0)

    def image_interval(self, run_ids: Sequence[str]) -> Interval | None:
        """Return the 95 % bootstrap interval over images of the trials' mean mIoU."""
        found = self.resampled(run_ids)
        return None if found is None else percentiles(found)

    def against(
        self, run_ids: Sequence[str], baseline_ids: Sequence[str]
    ) -> tuple[Interval, float] | None:
        """Compare the mean mIoU of the first trials with that of the baseline's.

        Returns the 95 % bootstrap interval over images of the difference, and the probability that
        it is above 0: the share of resamples. None as for `resampled`.
        """
        if not run_ids or self.resampled([*run_ids, *baseline_ids]) is None:
            return None
        pair = np.array([self.resampled(run_ids), self.resampled(baseline_ids)])
        lead = pair[0] - pair[1]
        return percentiles(lead), float(np.mean((np.sign(lead) + 1) / 2))

    def class_ious(self, run_ids: Sequence[str]) -> NDArray[np.float64]:
        """Return the mean over trials of IoU per label in percent: [1 + R, L].

        Row 0 is over all images, the others over resamples. NaN where a label does not occur. The
        trials must be such that `resampled` is not None.
        """
        found = [counts[1] for run_id in run_ids if (counts := self.counts(run_id))]
        drawn = resample_counts(found[0].num_images)
        return resampled_ious(found, np.vstack([np.ones_like(drawn[:1]), drawn])).mean(0)


def _mious(metrics: dict[str, Any] | None, config: RunConfig) -> dict[Measure, float]:
    """Return a finished trial's mIoU in percent; without what an older version did not score."""
    if metrics is None:
        return {}
    found = {
        Measure.fixed: metrics["miou_fixed"],
        Measure.held_out: metrics.get("miou_held_out"),
        Measure.best: metrics["miou_best"],
        Measure.auc: area_under_curve(metrics["curve"], config.labels),
    }
    return {measure: miou for measure, miou in found.items() if miou is not None}
