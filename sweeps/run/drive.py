"""Drives a sweep from the command line: missing trials, display, tracking, the closing table."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.live.progress import Board, mark_finished
from sweeps.report.live.render import print_tables
from sweeps.stages.task import Conduct
from sweeps.stages.training_warnings import KEY as WARNED
from sweeps.store.store import Store, read_json, write_json

INTERRUPTED, FAILED = 130, 1


def drive(
    sweep: Sweep,
    store: Store,
    options: dict[str, Any],
    *,
    retry_failed: bool,
    conduct: Conduct | None = None,
    budget_hours: float | None = None,
) -> int:
    """Run what is missing, log it, print the tables; return the process's exit code.

    budget_hours: GPU-hours (CPU-hours without GPUs) after which no trial starts. Returns 0: all
    trials finished; 1: some failed; 130: interrupted, or the budget is spent.
    """
    console = Console()
    store.check_writable()
    store.pull_results()
    store.push_results()  # what an earlier run could not
    save_sweep(store, sweep)
    store.push_sweep(sweep.name)
    missing = missing_trials(sweep, store, retry_failed=retry_failed)
    total = len(sweep.plan.trials)
    done = f"{total - len(missing)} of {total} trials done, {len(missing)} to run"
    console.print(Text(f"sweep {sweep.name}: {done}"))
    state = "complete"
    if missing:
        conduct = conduct or Conduct()
        state = _run_missing(sweep, store, missing, options, conduct, budget_hours, console)
    elif not _is_tracked(sweep, store):
        _sync_all(sweep, store, console)
    print_tables(console, sweep, store)
    store.push_sweep(sweep.name)
    if state == "interrupted":
        console.print(Text("interrupted; the same command goes on from here:"))
        console.print(Text(shlex.join(own_command())), soft_wrap=True)
        return INTERRUPTED
    if missing:
        _write_report(sweep, store, console)
        store.push_sweep(sweep.name)
    if state == "over budget":
        return INTERRUPTED
    failures = [t for t in sweep.plan.trials if store.run(t.run_id).failure()]
    for trial in failures:
        failure = store.run(trial.run_id).failure() or {}
        console.print(Text(f"failed: {trial.name}: {failure['kind']}: {failure['message']}"))
    if failures:
        console.print(Text("run them again with --retry-failed"))
    return FAILED if failures or state == "stopped" else 0


def own_command() -> list[str]:
    """Return this process's command as a person would type it, in words."""
    name = Path(sys.argv[0]).name
    program = ["sweeps"] if name == "sweeps" else [sys.executable, sys.argv[0]]
    if name == "__main__.py":
        program = [sys.executable, "-m", "sweeps"]
    return [*program, *sys.argv[1:]]


def missing_trials(sweep: Sweep, store: Store, *, retry_failed: bool) -> list[Trial]:
    """Return the trials to run: those without a result, failed ones only if asked for."""
    return [
        trial
        for trial in sweep.plan.trials
        if not store.run(trial.run_id).metrics()
        and (retry_failed or not store.run(trial.run_id).failure())
    ]


class _TrackingListener:
    """Tells the tracking thread about events worth logging."""

    def __init__(self, thread: Any) -> None:
        self.thread = thread
        self.epochs: dict[str, float] = {}
        """Run id -> epoch, of the trials now at work."""

    def update(self, trial: Trial, *, status: str, record: dict[str, float] | None = None) -> None:
        """Notice a new epoch, a warning, a start or an end; leave out progress within an epoch."""
        epoch, running = (record or {}).get("epoch", 0.0), status == "running"
        known = self.epochs.pop(trial.run_id, None)
        if running:
            self.epochs[trial.run_id] = epoch
            if known == epoch and WARNED not in (record or {}):
                return
        self.thread.notice(trial.run_id, running=running)


def _run_missing(
    sweep: Sweep,
    store: Store,
    missing: list[Trial],
    options: dict[str, Any],
    conduct: Conduct,
    budget_hours: float | None,
    console: Console,
) -> str:
    """Run the missing trials under display and tracking; return how it ended.

    complete: all were tried; interrupted: by a signal; over budget; stopped: for an error common to
    all trials.
    """
    from sweeps.run.budget_view import say_budget, say_spent
    from sweeps.run.resources import Resources
    from sweeps.run.tune import Ending, Listener, run_sweep
    from sweeps.track.sweep import SweepRuns
    from sweeps.track.thread import TrackingThread
    from sweeps.track.tracker import Tracker

    def say(text: str) -> None:
        console.print(Text(text))

    resources = Resources(**options)
    say_budget(sweep, store, resources, budget_hours, say)
    board = Board(sweep, console)
    runs = {trial.run_id: store.run(trial.run_id).metrics() for trial in sweep.plan.trials}
    mark_finished(board, sweep.plan, {run_id: m["miou_fixed"] for run_id, m in runs.items() if m})
    thread = TrackingThread(Tracker(store, SweepRuns(store, sweep)), say)
    with thread:
        try:
            with board:
                listeners: list[Listener] = [board, _TrackingListener(thread)]
                ending = run_sweep(
                    sweep, store, resources, missing, listeners, conduct=conduct,
                    budget_hours=budget_hours, say=say,
                )  # fmt: skip
        except KeyboardInterrupt:
            ending = Ending(interrupted=True)
    _sync_all(sweep, store, console)
    if ending.common_error is not None:
        error = ending.common_error
        say(f"stopped: trial after trial met the same error, so the others would too: {error}")
        say(f"traceback: {ending.traceback_file}")
        say("mend its cause and give the same command again; what is finished stays finished")
        return "stopped"
    unfinished = missing_trials(sweep, store, retry_failed=False)
    if unfinished and ending.over_budget and not ending.interrupted:
        say_spent(sweep, store, resources, budget_hours, ending.over_budget, own_command(), say)
        return "over budget"
    return "interrupted" if unfinished else "complete"


def _sync_all(sweep: Sweep, store: Store, console: Console) -> None:
    """Bring MLflow up to date, and remember for which results it is."""
    from sweeps.track.sweep import SweepRuns
    from sweeps.track.tracker import Tracker

    tracker = Tracker(store, SweepRuns(store, sweep))
    done = all(store.run(trial.run_id).metrics() for trial in sweep.plan.trials)
    if tracker.sync() and tracker.finish(status="FINISHED" if done else "KILLED"):
        if done:
            write_json(_tracking_file(sweep, store), _tracking_state(sweep))
        console.print(Text(f"MLflow: {tracker.uri} is up to date"))
    else:
        console.print(
            Text(
                f"MLflow: {tracker.uri} is not up to date ({tracker.problem}); give `sweeps sync` "
                "when it is back"
            )
        )


def _write_report(sweep: Sweep, store: Store, console: Console) -> None:
    """Write the report of what has come out, and attach it to the sweep's MLflow run."""
    from sweeps.report.tables.document import write_report
    from sweeps.track.sweep import SweepRuns
    from sweeps.track.tracker import Tracker

    folder = write_report(sweep, store)
    Tracker(store, SweepRuns(store, sweep)).log_report(folder)
    console.print(Text(f"report: {folder / 'report.html'}; `sweeps report` prints it"))


def _is_tracked(sweep: Sweep, store: Store) -> bool:
    """Whether these very results were logged to this very server before."""
    return bool(read_json(_tracking_file(sweep, store)) == _tracking_state(sweep))


def _tracking_file(sweep: Sweep, store: Store) -> Path:
    return store.sweep(sweep.name) / "tracking.json"


def _tracking_state(sweep: Sweep) -> dict[str, Any]:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return {"uri": uri, "runs": [trial.run_id for trial in sweep.plan.trials]}
