"""The state of each trial of a plan, read from the store in one pass over its folders.

finished: it has a score; failed: it has an error instead; started: at least one epoch is trained,
or enough iterations for a warning; missing: nothing yet. `running` is known only to the process
that runs the sweep.
"""

import logging
import os
import socket
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.plan.trials import Trial
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, read_json
from wsss.training.diagnosis.learning import DeadMaps, find_dead_maps

DRIVER_FILE = ".driver.json"
"""In a sweep's folder while a process runs it: which one. It stays on that process's machine."""
STATUSES = ("finished", "running", "started", "missing", "failed")

Metrics = Mapping[str, dict[str, Any]]
"""Run id -> its figures, of every finished run in the store."""

logger = logging.getLogger(__name__)


@dataclass
class TrialState:
    """The state of one trial."""

    status: str = "missing"
    """One of STATUSES."""
    progress: float = 0.0
    """In [0, 1], as far as known: 1 for a finished trial."""
    epoch: int = 0
    """Epochs trained."""
    miou_fixed: float | None = None
    """In percent."""
    failure: str = ""
    """Kind and message of a failed one."""
    warning: str = ""
    """Warning that the training is still at the label prior; not for a failed one."""
    dead: DeadMaps | str | None = None
    """Dead maps after the last epoch, if any; not for a failed one. In words while it runs."""
    metrics: dict[str, Any] | None = None
    """The figures of a finished one."""

    @property
    def seconds(self) -> float:
        """Training and inference time; 0 if it is not finished."""
        found = self.metrics or {}
        return float(found.get("train_seconds", 0)) + float(found.get("inference_seconds", 0))


def read_metrics(store: Store, known: Metrics | None = None, own: Container[str] = ()) -> Metrics:
    """Return the figures of every finished run; those in `known` are not read again.

    own: runs of which a damaged one raises StoreError; other damaged ones are left out, with a
    warning.
    """
    known, found = known or {}, {}
    for name in folder_names(store.root / "runs"):
        try:
            metrics = known.get(name) or store.run(name).result()
        except (StoreError, OSError) as error:
            if name in own:
                raise
            remedy = "" if isinstance(error, StoreError) else "; have it made accessible to you"
            _warn_once(f"{error}{remedy}")
            continue
        if metrics:
            found[name] = metrics
    return found


@cache
def _warn_once(problem: str) -> None:
    logger.warning("%s; until then no estimate uses it", problem)


def read_states(
    store: Store, trials: Iterable[Trial], metrics: Metrics | None = None
) -> dict[str, TrialState]:
    """Return run id -> state. metrics: as `read_metrics` returned them, if it was called.

    Raises StoreError for a damaged record of any of these trials.
    """
    runs, cams = folder_names(store.root / "runs"), folder_names(store.root / "cams")
    states: dict[str, TrialState] = {}
    for trial in trials:
        state = states[trial.run_id] = TrialState()
        if trial.cam_id in cams:
            cam = store.cam(trial.cam_id)
            epochs = cam.epochs()
            state.epoch, state.warning = len(epochs), cam.warning() or ""
            state.dead = find_dead_maps(epochs, trial.config)
            state.status = "started" if state.epoch or state.warning else "missing"
        if trial.run_id not in runs:
            continue
        run = store.run(trial.run_id)
        if figures := (metrics or {}).get(trial.run_id) or run.result():
            state.status, state.progress, state.metrics = "finished", 1.0, figures
            state.miou_fixed = figures["miou_fixed"]
        elif why := run.why_failed():
            state.status, state.failure, state.warning, state.dead = "failed", why, "", None
    return states


def nothing_runs(store: Store, sweep_name: str) -> bool:
    """Return whether surely no process runs a sweep: of a bucket, only its own machine knows."""
    if store.remote.url:
        return False
    with suppress(StoreError, KeyError, TypeError, OverflowError):  # damaged
        known = read_json(store.sweep(sweep_name) / DRIVER_FILE)
        if known is None:
            return True
        import psutil  # here, as a status seldom needs it

        return known["host"] == socket.gethostname() and not psutil.pid_exists(known["pid"])
    return False


def count_statuses(states: Iterable[TrialState]) -> str:
    """Return e.g. "3 finished, 1 failed", without the states that do not occur."""
    counts = Counter(state.status for state in states)
    return ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status])


def folder_names(path: Path) -> set[str]:
    """Return the names of the folders in a folder; none if it does not exist."""
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if entry.is_dir()}
    except FileNotFoundError:
        return set()
