"""The tables of a sweep as what the driver drives: their missing trials, board, ledger, report."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.live.progress import Board, mark_finished
from sweeps.report.live.render import print_tables
from sweeps.run.budget import Budget, forecast, size_of, way_on
from sweeps.run.dispatch import Listener, Outcome, Source
from sweeps.run.driver import Subject, own_command
from sweeps.run.faults import Break
from sweeps.run.resources import Resources
from sweeps.stages.stage import Conduct
from sweeps.stages.task import TrialTask
from sweeps.store.attempts import Ledger
from sweeps.store.failures import write_failure
from sweeps.store.store import Store

if TYPE_CHECKING:  # those load Ray or MLflow
    from sweeps.run.driver import Held
    from sweeps.run.tune import Round
    from sweeps.track.tracker import Tracker


@dataclass(frozen=True)
class Wishes:
    """How a person wants a sweep to be carried out. Changes no result."""

    conduct: Conduct = field(default_factory=Conduct)
    retry_failed: bool = False
    budget_hours: float | None = None
    """GPU-hours, or CPU-hours without GPUs, after which no trial starts; None: no limit."""


class Tables(Subject):
    """A sweep of tables."""

    resync = "`sweeps sync`"

    def __init__(self, sweep: Sweep, store: Store, wishes: Wishes) -> None:
        super().__init__(store, f"sweeps/{sweep.name}", f"sweep {sweep.name}")
        self.sweep, self.wishes = sweep, wishes
        self.networks = [trial.config.network for trial in sweep.plan.trials]
        self.weights_file = sweep.weights_file
        self.retry_failed = wishes.retry_failed
        """Whether failures are of an earlier start, and to be tried again."""
        self.while_driven = (
            f"follow it with `sweeps status --watch --store {store.root} --sweep {sweep.name}`, or "
            "end it"
        )

    def prepare(self, resources: Resources) -> list[str]:
        """Exchange results with the bucket, those too that an earlier start could not upload."""
        self.store.pull_results()
        self.store.push_results()
        save_sweep(self.store, self.sweep)
        self.store.push_sweep(self.sweep.name)
        total, missing = len(self.sweep.plan.trials), len(self.missing())
        done = f"{self.title}: {total - missing} of {total} trials done, {missing} to run"
        if not missing:
            return [done]
        return [done, *forecast(self.sweep, self._budget(resources), resources)]

    def missing(self) -> list[Trial]:
        """Return the trials to run: those without a result, failed ones only if asked for."""
        return missing_trials(self.sweep, self.store, retry_failed=self.retry_failed)

    def is_missing(self) -> bool:
        """Whether a trial is left to run."""
        return bool(self.missing())

    @contextmanager
    def accounts(self, resources: Resources) -> Iterator[Budget]:
        """Keep the sweep's ledger."""
        budget = self._budget(resources)
        with budget.ledger:
            yield budget

    def _budget(self, resources: Resources) -> Budget:
        """Return the budget to read from; only `accounts` writes into its ledger."""
        ledger = Ledger(self.store, self.sweep.name, size_of(resources))
        return Budget(ledger, self.wishes.budget_hours)

    def way_on(self, resources: Resources) -> list[str]:
        """Return the command with a budget that will do."""
        return way_on(self.sweep, self._budget(resources), resources, own_command())

    def held(self, lock: "Held") -> list[str]:
        """Raise ChangedError for half-trained networks of other code, unless that is accepted."""
        from sweeps.stages.guard import check_half_trained

        accept = self.wishes.conduct.accept_changes
        changed = check_half_trained(self.missing(), self.store, accept_changes=accept)
        return [f"{each}; it goes on all the same (--accept-changes)" for each in changed]

    def rounds(self, resources: Resources) -> "Iterator[Round[Trial]]":
        """Yield the missing trials."""
        from ray import tune

        from sweeps.run.trainable import sweep_trial
        from sweeps.run.tune import Round

        trials = self.missing()
        for trial in trials:
            self.store.run(trial.run_id).clear_failure()
        self.retry_failed = False
        tasks = {trial.run_id: self.task(trial, resources) for trial in trials}
        # Not a part of the space, which Tune writes into its logs again with every report.
        shared = tune.with_parameters(
            sweep_trial, tasks=tasks, resources=resources, conduct=self.wishes.conduct
        )
        source = MissingTrials(self.store, trials)
        yield Round(self.sweep.name, source, shared, lambda trial: {"run_id": trial.run_id})

    def task(self, trial: Trial, resources: Resources) -> TrialTask:
        """Return what a trial's process is told."""
        sweep = self.sweep
        return TrialTask(
            config=trial.config.model_dump(mode="json"),
            store=str(self.store.root),
            data=str(sweep.data),
            weights_file=str(sweep.weights_file) if sweep.weights_file else None,
            execution=resources.execution,
            remote=self.store.remote.url,
        )

    @contextmanager
    def watched(self, console: Console) -> Iterator[list[Listener[Any]]]:
        """Show the tables filling in."""
        board, plan = Board(self.sweep, console), self.sweep.plan
        runs = {trial.run_id: self.store.run(trial.run_id).metrics() for trial in plan.trials}
        mark_finished(board, plan, {run_id: m["miou_fixed"] for run_id, m in runs.items() if m})
        with board:
            yield [board]

    def tracker(self) -> "Tracker":
        """Return the tracker of a sweep."""
        from sweeps.track.sweep import SweepRuns
        from sweeps.track.tracker import Tracker

        return Tracker(self.store, SweepRuns(self.store, self.sweep))

    def results(self) -> list[str]:
        """Return the run ids."""
        return [trial.run_id for trial in self.sweep.plan.trials]

    def show(self, console: Console) -> None:
        """Print the tables."""
        print_tables(console, self.sweep, self.store)

    def report(self) -> str:
        """Write the report of what has come out, and attach it to the sweep's MLflow run."""
        from sweeps.report.tables.document import write_report

        folder = write_report(self.sweep, self.store)
        self.tracker().log_report(folder)
        return f"report: {folder / 'report.html'}; `sweeps report` prints it"

    def failures(self) -> list[str]:
        """Return a line per failed trial, and the option that tries them again."""
        whys = [(trial.name, failure_of(trial, self.store)) for trial in self.sweep.plan.trials]
        lines = [f"failed: {name}: {why}" for name, why in whys if why]
        return [*lines, "run them again with --retry-failed"] if lines else []


class MissingTrials(Source[Trial]):
    """Trials of tables as the driver's targets; none of them is stopped early."""

    def __init__(self, store: Store, trials: list[Trial]) -> None:
        super().__init__(trials)
        self.store = store

    def folder(self, target: Trial) -> Path:
        """Return the run's folder."""
        return self.store.run(target.run_id).path

    def ended(self, target: Trial) -> Outcome:
        """Look for the result which the trial has left."""
        self.store.pull_results()
        if self.store.run(target.run_id).metrics():
            return Outcome("done")
        why = failure_of(target, self.store)
        return Outcome("failed", why) if why else Outcome("started")

    def gave_up(self, target: Trial, broke: Break) -> None:
        """Write down why the trial has failed."""
        write_failure(self.folder(target), broke.kind, broke.message, broke.traceback)
        self.store.push_run(target.run_id)


def failure_of(trial: Trial, store: Store) -> str | None:
    """Return the kind of a trial's failure, and why it failed; None if it has not."""
    failure = store.run(trial.run_id).failure()
    return f"{failure['kind']}: {failure['message']}" if failure else None


def missing_trials(sweep: Sweep, store: Store, *, retry_failed: bool) -> list[Trial]:
    """Return the trials to run: those without a result, failed ones only if asked for."""
    return [
        trial
        for trial in sweep.plan.trials
        if not store.run(trial.run_id).metrics()
        and (retry_failed or not store.run(trial.run_id).failure())
    ]
