"""A store's results for notebooks and scripts, as typed rows or a pandas DataFrame.

Reading needs neither the data set nor a cluster, and is possible while the sweep runs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.evidence.image_counts import RunImageCounts, load_image_counts, load_threshold_counts
from sweeps.plan.sweep import Sweep, load_sweep
from sweeps.report.trials import TrialRow, trial_records, trial_rows
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, open_store
from wsss.evaluation.confusion import ThresholdCounts

if TYPE_CHECKING:
    import pandas


def open_results(store: str | Path = "results", sweep: str | None = None) -> "SweepResults":
    """Return the results of a sweep, by default the one started last.

    store: a folder or s3://bucket/prefix. sweep: its name, as `sweeps list` shows it. Raises
    StoreError if there is none.
    """
    results = open_store(store)
    results.pull_results()
    return SweepResults(results, load_sweep(results, sweep))


@dataclass(frozen=True)
class SweepResults:
    """The results of a sweep so far. Every call reads the store again."""

    store: Store
    sweep: Sweep

    def __repr__(self) -> str:
        """Name the sweep: a notebook shows what a cell returns."""
        return f"SweepResults({self.sweep.name} in {self.store.address})"

    def trials(self) -> list[TrialRow]:
        """Return a row per trial, finished or not."""
        self.store.pull_results()
        return trial_rows(self.sweep, self.store)

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the same as a DataFrame: a column per field, varied setting and label."""
        import pandas

        records = trial_records(self.trials())
        return pandas.DataFrame(list(records.rows), columns=list(records.columns))

    def image_counts(self, run_id: str) -> RunImageCounts:
        """Return each image's pixels per label at the fixed and at the best threshold.

        Raises StoreError if the trial is not finished.
        """
        run = self.store.run(run_id)
        image_ids, fixed = load_image_counts(run, "fixed")
        return RunImageCounts(image_ids, fixed, load_image_counts(run, "best")[1])

    def threshold_counts(self, run_id: str) -> ThresholdCounts:
        """Return the confusion counts of each image at every threshold, behind all scores.

        Raises StoreError for a trial that is not in the sweep or not finished.
        """
        found = [t.config for t in self.sweep.plan.trials if t.run_id == run_id]
        if not found or self.store.run(run_id).result() is None:
            raise StoreError(f"{run_id}: not a finished trial of {self.sweep.name}")
        return load_threshold_counts(self.store, found[0])
