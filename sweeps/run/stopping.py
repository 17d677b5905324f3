"""How a start of the driver ends before its trials do: by a signal, or when the budget is spent.

Both ask for an orderly end: no trial starts any more, and those at work are ended once each has
saved a checkpoint or is past its training. So nothing is lost but the steps since, and the scoring,
which is short. A second signal ends at once.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sweeps.run.budget import Budget
from sweeps.run.signals import Interrupts
from sweeps.store.store import Store

ORDERLY = (
    "{why}: starting no more trials. Those at work go on to their next checkpoint, then all stops; "
    "once more stops it at once, and what came since the last checkpoint is repeated."
)


class OrderlyEnd:
    """Says whether trials may still start, and when those at work may be ended."""

    def __init__(
        self,
        store: Store,
        interrupts: Interrupts,
        budget: Budget | None,
        say: Callable[[str], None],
    ) -> None:
        self.store, self.interrupts, self.budget, self.say = store, interrupts, budget, say
        self.waiting: dict[str, _Reached] | None = None
        """Run id -> how far its training was when the end was asked for; None before that."""

    def reason(self) -> str | None:
        """Return why no more trials may start; None if they may."""
        if self.interrupts.requested:
            return self.interrupts.requested
        return self.budget.reason() if self.budget else None

    def is_due(self, at_work: Mapping[str, str], epochs: Mapping[str, float]) -> bool:
        """Whether all trials at work may be ended now.

        at_work: run id -> cam_id of the training. epochs: run id -> the last reported epoch.
        """
        why = self.reason()
        if why is None:
            return False
        if self.waiting is None:
            self.waiting = {
                run_id: self._reached(cam_id, epochs.get(run_id, 0.0))
                for run_id, cam_id in at_work.items()
            }
            self.say(ORDERLY.format(why=why))
        self.waiting = {
            run_id: then
            for run_id, then in self.waiting.items()
            if run_id in at_work
            and not self._is_safe(at_work[run_id], then, epochs.get(run_id, 0.0))
        }
        return not self.waiting

    def _reached(self, cam_id: str, epoch: float) -> "_Reached":
        folder = self.store.cam(cam_id).checkpoints
        return _Reached({path.name for path in folder.glob("epoch_*.pt")}, epoch)

    def _is_safe(self, cam_id: str, then: "_Reached", epoch: float) -> bool:
        """Whether a checkpoint came since. On another machine, two epochs later one must have."""
        now = self._reached(cam_id, epoch)
        return (
            self.store.cam(cam_id).trained() is not None
            or bool(now.checkpoints - then.checkpoints)
            or now.epoch >= then.epoch + 2
        )


class _Reached(NamedTuple):
    """How far a training is."""

    checkpoints: set[str]
    epoch: float
