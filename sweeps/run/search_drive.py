"""Drives a search from the command line: missing trials, lines of progress, tracking, the table.

Torch, Ray, Optuna and MLflow are imported only when something is missing.
"""

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from sweeps.plan.search import Search
from sweeps.plan.search_history import History, SearchTrial, best_trials
from sweeps.report.live.search_render import print_search
from sweeps.run.drive import FAILED, INTERRUPTED
from sweeps.store.store import Store, read_json, write_json
from wsss.identity import cam_id
from wsss.training.prior import PriorLimits


def drive_search(
    search: Search, store: Store, options: dict[str, Any], *, samples: int,
    limits: PriorLimits | None = None,
) -> int:  # fmt: skip
    """Run what is missing of a search, log it, print its table; return the exit code.

    0: complete; 1: some trials or closing scores failed; 130: interrupted.
    """
    console = Console()
    store.check_writable()
    history = History(search.folder(store))
    write_json(history.folder / "search.json", search.to_json())
    missing = history.missing(samples)
    done = f"{samples - missing} of {samples} trials done, {missing} to run"
    console.print(Text(f"search {search.name}: {done}"))
    interrupted = False
    if missing or history.missing_held_out(cam_id(search.base)):
        interrupted = _run_missing(
            search, store, options, samples, limits or PriorLimits(), console
        )
    if read_json(history.folder / "tracking.json") != _tracking_state(history):
        _track(search, store, samples, console)
    print_search(console, search, history)
    store.push_folder(history.folder)
    if interrupted:
        console.print(Text("interrupted; give the same command again to go on from here"))
        return INTERRUPTED
    for trial in history.trials():
        if trial.status == "error":
            console.print(Text(f"failed: trial {trial.number}: {trial.message}"))
    if history.missing(samples) or history.missing_held_out(cam_id(search.base)):
        console.print(Text("not complete; give the same command again to try what failed"))
        return FAILED
    return 0


def _run_missing(
    search: Search, store: Store, options: dict[str, Any], samples: int, limits: PriorLimits,
    console: Console,
) -> bool:  # fmt: skip
    """Run the search under progress and tracking; return whether a person interrupted it."""
    from sweeps.run.resources import Resources
    from sweeps.run.search import run_search
    from sweeps.track.search import SearchRuns
    from sweeps.track.thread import TrackingThread
    from sweeps.track.tracker import Tracker

    tracker = Tracker(store, SearchRuns(store, search))
    thread = TrackingThread(tracker, lambda text: console.print(Text(text)))
    history = History(search.folder(store))
    progress = _Progress(history, samples, console, thread)
    with thread:
        try:
            return run_search(
                search, store, Resources(**options), samples=samples, listen=progress, limits=limits
            )
        except KeyboardInterrupt:
            return True


def _track(search: Search, store: Store, samples: int, console: Console) -> None:
    """Bring MLflow up to date, and remember for which results it is."""
    from sweeps.track.search import SearchRuns
    from sweeps.track.tracker import Tracker

    tracker, history = Tracker(store, SearchRuns(store, search)), History(search.folder(store))
    missing = history.missing(samples) or history.missing_held_out(cam_id(search.base))
    status = "KILLED" if missing else "FINISHED"
    if tracker.sync() and tracker.finish(status=status):
        write_json(history.folder / "tracking.json", _tracking_state(history))
        console.print(Text(f"MLflow: {tracker.uri} is up to date"))
        return
    console.print(
        Text(
            f"MLflow: {tracker.uri} is not up to date ({tracker.problem}); give the same command "
            "when it is back"
        )
    )


def _tracking_state(history: History) -> dict[str, Any]:
    """Return what is to be logged, and where."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    trials = [f"{trial.number} {trial.status}" for trial in history.trials()]
    return {"uri": uri, "trials": trials, "held_out": sorted(history.held_out())}


class _Progress:
    """Prints a line per ended trial, and tells the tracking thread of every change."""

    def __init__(self, history: History, samples: int, console: Console, thread: Any) -> None:
        self.history, self.samples = history, samples
        self.console, self.thread = console, thread
        self.told: set[str] = set()
        self.warned: set[str] = set()

    def __call__(self, trial: SearchTrial | None) -> None:
        """Take note of a trial's new state, or of a held-out score."""
        if trial is None:
            scored = len(self.history.held_out())
            self.console.print(Text(f"settings scored on the held-out half: {scored}"))
            return
        working = trial.status == "running"
        if trial.warning and trial.run_id not in self.warned:
            self.warned.add(trial.run_id)
            self.console.print(Text(f"warning: trial {trial.number}: {trial.warning}"))
        self.thread.notice(trial.run_id, running=working)
        if not working and trial.run_id not in self.told:
            self.told.add(trial.run_id)
            self._print(trial)

    def _print(self, trial: SearchTrial) -> None:
        trials = self.history.trials()
        ended, best = sum(known.ended for known in trials), best_trials(trials, 1)
        figure = "" if trial.objective is None else f" {trial.objective:.2f} %"
        reason = f"; {trial.message}" if trial.message else ""
        so_far = f"; best so far {best[0].objective:.2f} % (trial {best[0].number})" if best else ""
        self.console.print(
            Text(
                f"{ended}/{self.samples}: trial {trial.number} {trial.status} after epoch "
                f"{trial.last_epoch}:{figure}{so_far}{reason}"
            )
        )
