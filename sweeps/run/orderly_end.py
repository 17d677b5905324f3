"""How a start of the driver ends before its work does: by a signal, or when the budget is spent.

Both ask for an orderly end: nothing starts any more, and what is at work is ended once it has saved
a checkpoint or is past its training. So nothing is lost but the steps since, and the scoring, which
is short.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sweeps.run.budget import Budget
from sweeps.run.signals import Interrupts
from sweeps.store.store import Store

ORDERLY = (
    "{why}: starting no more {noun}s. Those running, if any, continue to their next "
    "checkpoint, then all stops; another signal stops all at once, and work since the last "
    "checkpoint is repeated."
)


class OrderlyEnd:
    """Says whether work may still start, and when what is at work may be ended.

    noun: what a piece of work is called.
    """

    def __init__(
        self,
        store: Store,
        interrupts: Interrupts,
        budget: Budget | None,
        say: Callable[[str], None],
        noun: str = "trial",
    ) -> None:
        self.store, self.interrupts, self.budget = store, interrupts, budget
        self.say, self.noun = say, noun
        self.waiting: dict[str, _Reached] | None = None
        """Run id -> how far its training was when the end was asked for; None before that."""
        self.is_said = False
        interrupts.on_first = self._say_soon

    def reason(self) -> str | None:
        """Return why nothing more may start; None if it may."""
        if self.interrupts.requested:
            return self.interrupts.requested
        return self.budget.reason() if self.budget else None

    def is_due(self, at_work: Mapping[str, str], epochs: Mapping[str, float]) -> bool:
        """Whether all that is at work may be ended now.

        at_work: run id -> path in the store of its training. epochs: run id -> the last reported
        epoch.
        """
        why = self.reason()
        if why is None:
            return False
        if self.waiting is None:
            self.waiting = {
                run_id: _Reached(set(self.store.folder(rel).checkpoint_names()), epochs.get(run_id))
                for run_id, rel in at_work.items()
            }
            if not self.is_said:
                self.say(self._words(why))
        self.waiting = {
            run_id: then
            for run_id, then in self.waiting.items()
            if run_id in at_work and not self._is_safe(at_work[run_id], then, epochs.get(run_id))
        }
        return not self.waiting

    def _say_soon(self, why: str) -> None:
        """Say it now, though this process be at work: from a thread, as a handler may not print."""
        self.is_said = True
        threading.Thread(target=self.say, args=(self._words(why),)).start()

    def _words(self, why: str) -> str:
        return ORDERLY.format(why=why, noun=self.noun)

    def _is_safe(self, rel: str, then: "_Reached", epoch: float | None) -> bool:
        """Whether a checkpoint came since. On another machine, two epochs later one must have."""
        folder = self.store.folder(rel)
        if folder.result() is not None or not then.checkpoints.issuperset(
            folder.checkpoint_names()
        ):
            return True
        if epoch is None:
            return False
        if then.epoch is None:  # resumed when the end was asked for, and this is its first report
            then.epoch = epoch - 1
        return epoch >= then.epoch + 2


@dataclass
class _Reached:
    """How far a training was when the end was asked for."""

    checkpoints: set[str]
    epoch: float | None
    """The last reported one; None: it had reported none."""
