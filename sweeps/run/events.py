"""Tune's events during a sweep: told to listeners, and why a trial's process ended found out.

A trial is restarted from its last checkpoint when its process died, hung or met an unforeseen
error, MAX_TRIAL_RESTARTS times. A node that went away is nobody's fault and counts apart.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle, tune
from ray.exceptions import ActorUnavailableError, RayActorError

from sweeps.plan.trials import Trial
from sweeps.stages.hangs import num_hangs
from sweeps.store.attempts import Reason
from sweeps.store.failures import ErrorNote, SameErrors, take_note, write_failure
from sweeps.store.store import Store

MAX_TRIAL_RESTARTS = 2
"""Restarts of a trial whose process died or whose code raised an unforeseen error."""

MAX_LOST_NODES = 50
"""Restarts of a trial whose node went away: preemption is not a failure, but has an end."""


class Listener(Protocol):
    """Is told what happens to trials."""

    def update(self, trial: Trial, *, status: str, record: dict[str, float] | None = None) -> None:
        """status: running, started (stopped half-way), done or failed; record: the last numbers."""


class Events(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Passes Tune's events on, counts restarts, and notices errors that all trials share.

    ended: is told (run id, why) of attempts whose end no listener hears of, as the ledger wants.
    """

    def __init__(
        self,
        store: Store,
        trials: dict[str, Trial],
        listeners: list[Listener],
        say: Callable[[str], None],
        ended: Callable[[str, Reason], None] = lambda run_id, why: None,
    ) -> None:
        self.ended = ended
        self.store, self.trials, self.listeners, self.say = store, trials, listeners, say
        self.last: dict[str, dict[str, float]] = {}
        self.failures: Counter[str] = Counter()
        self.hangs = {run_id: num_hangs(store.run(run_id).path) for run_id in trials}
        self.running: set[str] = set()
        self.told_failures: set[str] = set()
        self.same_errors = SameErrors()
        self.common_error: ErrorNote | None = None
        """The error for which the sweep has to stop."""
        self.traceback_file: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; listeners hold terminals and threads."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune has started or restarted a trial."""
        self._tell(trial, "running")

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial has reported."""
        run_id = trial.config["run_id"]
        self.last[run_id] = result
        self._hung(run_id)  # a Ray Train worker that was restarted without Tune
        self._tell(trial, "running", result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has ended, or was stopped."""
        self.store.pull_results()
        run = self.store.run(trial.config["run_id"])
        status = "done" if run.metrics() else "failed" if run.failure() else "started"
        if status == "failed":
            self._say_failure(trial.config["run_id"])
        self._tell(trial, status, self.last.get(trial.config["run_id"]))

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Tune is about to restart a trial whose process has ended."""
        run_id = trial.config["run_id"]
        if _lost_its_node(trial):
            self.running.discard(run_id)
            self.ended(run_id, "preempted")
            self.say(f"{self._name(run_id)}: its node went away; it goes on elsewhere")
            return
        why, note = self._why(trial)
        self.ended(run_id, "failed" if note else "hang" if why.startswith("hung") else "killed")
        self.failures[run_id] += 1
        if self._is_common(run_id, note):
            return
        if self.failures[run_id] <= MAX_TRIAL_RESTARTS:
            count = f"restart {self.failures[run_id]} of {MAX_TRIAL_RESTARTS}"
            self.say(f"{self._name(run_id)}: {why}; {count}, from its last checkpoint")
            return
        self._record(trial, why, note)
        trial.config["given_up"] = True  # Tune restarts it once more, for nothing

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has failed for good."""
        why, note = self._why(trial)
        if not self._is_common(trial.config["run_id"], note):
            self._record(trial, why, note)

    def _record(self, trial: Any, why: str, note: ErrorNote | None) -> None:
        run_id = trial.config["run_id"]
        kind = note.kind if note else "hung" if why.startswith("hung") else "died"
        details = note.traceback if note else str(_error_of(trial) or why)
        write_failure(self.store.run(run_id).path, kind, note.message if note else why, details)
        self.store.push_run(run_id)
        self._say_failure(run_id)
        self._tell(trial, "failed")

    def _say_failure(self, run_id: str) -> None:
        """Say at once why a trial has failed."""
        failure = self.store.run(run_id).failure()
        if failure and run_id not in self.told_failures:
            self.told_failures.add(run_id)
            self.say(f"{self._name(run_id)}: {failure['kind']}: {failure['message']}")

    def _why(self, trial: Any) -> tuple[str, ErrorNote | None]:
        """Return in words why a trial's process ended, and the note which it left, if any."""
        run_id = trial.config["run_id"]
        if note := take_note(self.store.run(run_id).path):
            return str(note), note
        if self._hung(run_id):
            return f"hung, ended by its watchdog; see {self._folder(run_id)}/stack.txt", None
        error = _error_of(trial)
        lines = str(error or "the process ended without a word").strip().splitlines()
        return (lines[0] if isinstance(error, RayActorError) else lines[-1]), None

    def _is_common(self, run_id: str, note: ErrorNote | None) -> bool:
        """Whether so many trials have met this error that the sweep has to stop."""
        if note and self.same_errors.add(run_id, note) and self.common_error is None:
            self.traceback_file = self.store.run(run_id).path / "traceback.txt"
            self.traceback_file.write_text(note.traceback, encoding="utf-8")
            self.common_error = note
        return self.common_error is not None

    def _hung(self, run_id: str) -> bool:
        """Whether a watchdog has acted since this was last asked; if so, say it."""
        known = self.hangs[run_id]
        self.hangs[run_id] = num_hangs(self.store.run(run_id).path)
        if self.hangs[run_id] > known:
            self.say(f"{self._name(run_id)}: made no progress; its process was ended. The stacks "
                     f"of its threads are in {self._folder(run_id)}/stack.txt")  # fmt: skip
        return self.hangs[run_id] > known

    def _folder(self, run_id: str) -> str:
        return str(self.store.run(run_id).path)

    def _name(self, run_id: str) -> str:
        return self.trials[run_id].name

    def _tell(self, trial: Any, status: str, record: dict[str, Any] | None = None) -> None:
        run_id = trial.config["run_id"]
        (self.running.add if status == "running" else self.running.discard)(run_id)
        for listener in self.listeners:
            listener.update(self.trials[run_id], status=status, record=record)


def _lost_its_node(trial: Any) -> bool:
    """Whether a trial's process ended because its machine did."""
    error = _error_of(trial)
    if not isinstance(error, RayActorError):
        return False
    if isinstance(error, ActorUnavailableError):
        # A host without power: nobody is left there who could tell, and the head needs up to half a
        # minute to call it dead. A process that dies on a host that lives is reported as dead.
        return len(ray.nodes()) > 1
    return bool(error.preempted) or "node has died" in str(error)


def _error_of(trial: Any) -> BaseException | None:
    """Return the error with which a trial's process ended last.

    Read from Tune's local folder, where this very process has just written it: the copy that
    `trial.get_pickled_error` reads comes later.
    """
    try:
        found = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (OSError, TypeError):
        return None
    return found if isinstance(found, BaseException) else None
