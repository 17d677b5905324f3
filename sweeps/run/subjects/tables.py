"""The tables of a sweep as a subject of the driver: missing trials, board, ledger, report."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sweeps.plan.states import read_states
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial, groups_of
from sweeps.report.live.cost_lines import UNKNOWN_TIME, time_left
from sweeps.report.live.progress import Board
from sweeps.report.live.render import print_tables
from sweeps.run.budget import Budget, cost_of, hours_left, size_of
from sweeps.run.dispatch import End, Event, Listener, Numbers, Source, TargetStatus
from sweeps.run.driver import NOT_COMPLETE, Subject
from sweeps.run.ray.resources import Resources
from sweeps.stages.stage import Conduct, Place
from sweeps.store.attempts import Ledger
from sweeps.store.failures import ErrorNote
from sweeps.store.rooms import Driven
from sweeps.store.store import Store
from wsss.basics.printable import command, counted, own_command, own_words

if TYPE_CHECKING:  # those load Ray or MLflow
    from sweeps.run.ray.tune import TuneRunner
    from sweeps.track.view import Tracked


class DrivenSweep(Subject):
    """A sweep of tables.

    retry_failed: whether to try failed trials again; not those that fail at this start.
    budget_hours: GPU-hours, or CPU-hours without GPUs, after which no trial starts; None: no limit.
    """

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        conduct: Conduct | None = None,
        *,
        retry_failed: bool = False,
        budget_hours: float | None = None,
    ) -> None:
        place = Place(store, sweep.data, sweep.weights_file, conduct=conduct or Conduct())
        super().__init__(Driven("sweep", sweep.name), place)
        self.sweep = sweep
        self.networks = [trial.config.network for trial in sweep.plan.trials]
        self.retry_failed, self.budget_hours = retry_failed, budget_hours
        self.named = ("--store", store.address, "--sweep", sweep.name)
        follow = command("sweeps", "status", "--watch", *self.named)
        self.while_driven = f"follow it with `{follow}`, or end it"

    def prepare(self, resources: Resources) -> list[str]:
        """Exchange results with the bucket, including those an earlier start could not upload."""
        self.store.pull_results()
        trials = self.sweep.plan.trials
        self.store.push_results(trial.run_id for trial in trials)
        missing = {trial.run_id for trial in self.missing()}
        others = [self.store.run(trial.run_id) for trial in trials if trial.run_id not in missing]
        failed = sum(run.failure() is not None for run in others)
        share = f"{len(others) - failed} of {counted(len(trials), 'trial')} done"
        share += f", {failed} failed" if failed else ""
        done = f"{self.what.title}: {share}, {len(missing)} to run"
        if not missing:
            return [done]
        cost = cost_of(self.sweep, self.store)
        is_known = cost.trials and hours_left(cost, resources) is not None
        left = time_left(cost) if is_known else UNKNOWN_TIME
        return [f"{done}; {left}", *self._budget(resources).forecast(cost, resources)]

    def write_down(self) -> None:
        """Write the sweep's description."""
        save_sweep(self.store, self.sweep)
        self.store.folder(self.what.path).push()

    def missing(self) -> list[Trial]:
        """Return the trials without a result; failed ones only if they are tried again."""
        runs = [(trial, self.store.run(trial.run_id)) for trial in self.sweep.plan.trials]
        return [
            trial
            for trial, run in runs
            if not run.result() and (self.retry_failed or not run.failure())
        ]

    @contextmanager
    def accounts(self, resources: Resources) -> Iterator[Budget]:
        """Keep the sweep's ledger."""
        budget = self._budget(resources)
        with budget.ledger:
            yield budget

    def _budget(self, resources: Resources) -> Budget:
        """Return a budget for reading; only `accounts` writes into its ledger."""
        ledger = Ledger(self.store, self.sweep.name, size_of(resources))
        return Budget(ledger, self.budget_hours)

    def how_to_continue(self, resources: Resources) -> list[str]:
        """Return the command with a sufficient budget."""
        cost = cost_of(self.sweep, self.store)
        return self._budget(resources).how_to_continue(cost, resources, own_words())

    def begin_alone(self, check_lock: Callable[[], None]) -> list[str]:
        """Raise ChangedError for half-trained networks of other code, unless that is accepted."""
        from sweeps.stages.guard import check_half_trained

        accept = self.place.conduct.accept_changes
        changed = check_half_trained(self.missing(), self.store, accept_changes=accept)
        return [f"{each}; it continues anyway (--accept-changes)" for each in changed]

    def runner(self, resources: Resources) -> "TuneRunner[TrialGroup]":
        """Return what runs the missing trials, those of one training together."""
        from sweeps.run.ray.tune import TuneRunner, distributed_trial, sweep_trial

        trials = self.missing()
        for trial in trials:
            self.store.run(trial.run_id).clear_failure()
        self.retry_failed = False
        source = MissingTrials(self.store, trials)
        groups = {
            each.cam_id: tuple(t.config for t in each.trials.values()) for each in source.waiting
        }
        place = replace(self.place, execution=resources.execution)
        return TuneRunner(
            source,
            sweep_trial if resources.inline else distributed_trial,
            {"groups": groups, "place": place},  # not for each trial's space, which is copied
            lambda each: {"cam_id": each.cam_id},
            self.store.root / "ray" / self.sweep.name,
            resources,
        )

    @contextmanager
    def watched(self, console: Console) -> Iterator[list[Listener]]:
        """Show the tables filling in."""
        missing = {trial.run_id for trial in self.missing()}
        others = [trial for trial in self.sweep.plan.trials if trial.run_id not in missing]
        with Board(self.sweep, console, read_states(self.store, others)) as board:
            yield [board]

    def tracked(self) -> "Tracked":
        """Return the runs of a sweep."""
        from sweeps.track.runs.sweep import SweepRuns

        return SweepRuns(self.store, self.sweep)

    def results(self) -> list[str]:
        """Return the run ids."""
        return [trial.run_id for trial in self.sweep.plan.trials]

    def show(self, console: Console) -> None:
        """Print the tables."""
        print_tables(console, self.sweep, self.store)

    def report(self) -> list[str]:
        """Write the report, and attach it to the sweep's MLflow run."""
        from sweeps.report.tables.answer import answer
        from sweeps.report.tables.document import write_report
        from sweeps.track.runs.sweep import verdict_counts

        report = write_report(self.sweep, self.store)
        answers = [f"{said.question} {said.answer}" for said in map(answer, report.tables)]
        *remarks, where = self.attach(self.folder / self.page, verdict_counts(report))
        again = command("sweeps", "report", *self.named)
        return [*answers, *remarks, f"{where}; `{again}` prints it"]

    def failures(self) -> list[str]:
        """Return a line per failed trial, and how to try again what has no result."""
        trials = self.sweep.plan.trials
        whys = [(trial.name, self.store.run(trial.run_id).why_failed()) for trial in trials]
        lines = [f"failed: {name}: {why}" for name, why in whys if why]
        if lines:
            return [*lines, f"run them again with: {own_command('--retry-failed')}"]
        return [NOT_COMPLETE] if self.missing() else []


class TrialGroup:
    """The trials that one training serves: what one trial of Tune does."""

    def __init__(self, trials: tuple[Trial, ...]) -> None:
        self.trials = {trial.run_id: trial for trial in trials}
        """Run id -> trial, in the order in which they are scored."""
        self.open = dict(self.trials)
        """Those that have not reported their end."""
        self.trial = trials[0]
        """The running one."""
        self.cam_id = self.run_id = trials[0].cam_id

    @property
    def name(self) -> str:
        """Name of the running trial."""
        return self.trial.name


class MissingTrials(Source[TrialGroup]):
    """Missing trials of tables, grouped by training; none of them is stopped early."""

    def __init__(self, store: Store, trials: list[Trial]) -> None:
        super().__init__(map(TrialGroup, groups_of(trials)))
        self.store = store

    def folder(self, target: TrialGroup) -> Path:
        """Return the folder of the running trial."""
        return self.store.run(target.trial.run_id).path

    def events(
        self, target: TrialGroup, status: TargetStatus, record: Numbers | None
    ) -> Iterator[Event]:
        """Report each trial of the training by itself: its start, its records, its end.

        Of an end, listeners hear again when all results have been downloaded.
        """
        if status != "running":
            for trial in target.trials.values():
                end = self._end(trial)
                if trial is target.trial or end.status != "started":
                    yield Event(trial, end.status, None)
            return
        before = target.trial
        if record is None:
            target.trial = next(iter(target.open.values()), before)
            yield Event(target.trial, "running", None)
            return
        target.trial = trial = target.trials[record["run"]]
        if trial is not before:
            yield Event(trial, "running", None)
        why = record.get("failed", "")
        if "miou_fixed" in record or why:
            status = "failed" if why else "done"
            target.open.pop(trial.run_id, None)
        yield Event(trial, status, record, why)

    def ended(self, target: TrialGroup) -> End:
        """Look for the results of the trials that have reported none."""
        self.store.pull_results()
        ends = {run_id: self._end(trial) for run_id, trial in target.open.items()}
        for run_id, end in ends.items():
            if end.status == "failed":
                target.trial = target.trials[run_id]
                return end
        return End("started" if any(e.status == "started" for e in ends.values()) else "done")

    def gave_up(self, target: TrialGroup, note: ErrorNote) -> None:
        """Record why its trials failed, except those that are scored.

        Nothing if the store is at fault: the next start tries them again.
        """
        if note.of_store:
            return
        for run_id, trial in target.open.items():
            if self._end(trial).status == "started":
                self.store.run(run_id).fail(note.kind, note.message, note.traceback)

    def _end(self, trial: Trial) -> End:
        if self.store.run(trial.run_id).result():
            return End("done")
        why = self.store.run(trial.run_id).why_failed()
        return End("failed", why) if why else End("started")
