"""Whether a sweep has to end before its trials have: asked of Tune at every step."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ray import tune

from sweeps.run.budget import Budget
from sweeps.run.events import Events
from sweeps.run.interrupts import Interrupts
from sweeps.store.store import Store

ORDERLY = (
    "{why}: starting no more trials. Those at work go on to their next checkpoint, then the sweep "
    "stops; once more stops it at once, and what came since the last checkpoint is repeated."
)


class EarlyEnd(tune.Stopper):  # type: ignore[misc]  # ray is untyped
    """Ends a sweep for an error that trials share, after a signal, or when its budget is spent.

    In the last two cases, trials at work are ended once each has saved a checkpoint, or is past its
    training: so nothing is lost but the steps since, and the scoring, which is short.
    """

    def __init__(
        self,
        store: Store,
        events: Events,
        interrupts: Interrupts,
        budget: Budget,
        say: Callable[[str], None],
    ) -> None:
        self.store, self.events, self.say = store, events, say
        self.interrupts, self.budget = interrupts, budget
        self.waiting: dict[str, _AtSignal] | None = None
        """Run id -> how far it was at the signal; None before one."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its stopper, which is of no use to it later."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Whether to end the sweep now."""
        if self.events.common_error is not None:
            return True
        why = self.shut()
        if why is None:
            return False
        if self.waiting is None:
            self.waiting = {run_id: self._state(run_id) for run_id in self.events.running}
            self.say(ORDERLY.format(why=why))
        self.waiting = {
            run_id: known
            for run_id, known in self.waiting.items()
            if run_id in self.events.running and not self._is_safe(run_id, known)
        }
        return not self.waiting

    def shut(self) -> str | None:
        """Return why no more trials may start; None if they may."""
        return self.interrupts.requested or self.budget.reason()

    def _state(self, run_id: str) -> "_AtSignal":
        folder = self.store.cam(self.events.trials[run_id].cam_id).checkpoints
        epoch = self.events.last.get(run_id, {}).get("epoch", 0.0)
        return _AtSignal({path.name for path in folder.glob("epoch_*.pt")}, epoch)

    def _is_safe(self, run_id: str, known: "_AtSignal") -> bool:
        """Whether a checkpoint came since. On another machine, two epochs later one must have."""
        cam, now = self.store.cam(self.events.trials[run_id].cam_id), self._state(run_id)
        return (
            cam.trained() is not None
            or bool(now.checkpoints - known.checkpoints)
            or now.epoch >= known.epoch + 2
        )


class _AtSignal(NamedTuple):
    """How far a trial was when the signal came."""

    checkpoints: set[str]
    epoch: float
