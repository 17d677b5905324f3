"""What follows when the attempt at a trial breaks off: `decide`, a pure function of what happened.

A trial is restarted from its last checkpoint when its process died, hung or met an unforeseen
error, MAX_RESTARTS times. A node that went away is nobody's fault and counts apart. An unforeseen
error that several trials meet is a fault of the code, and would meet the others too. A foreseen
one, such as a broken picture, would come again, but may be that of one trial.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sweeps.store.attempts import Reason
from sweeps.store.failures import ErrorNote

MAX_RESTARTS = 2
"""Restarts of a trial whose process died or hung, or whose code raised an unforeseen error."""

MAX_LOST_NODES = 50
"""Restarts of a trial whose node went away: preemption is not a failure, but has an end."""

SAME_ERROR_STOPS = 3
"""So many distinct trials with one error stop all. A trial that meets it again and again is its
own affair."""

Cause = Literal["error", "hang", "death", "lost node"]

KINDS: dict[Cause, str] = {"hang": "hung", "death": "died", "lost node": "died"}
"""What a failure is called that left no error of its own."""

LEDGER_REASONS: dict[Cause, Reason] = {
    "error": "failed",
    "hang": "hang",
    "death": "killed",
    "lost node": "preempted",
}
"""What the ledger calls each way in which an attempt ends."""


@dataclass(frozen=True)
class Break:
    """Why one attempt at a trial broke off."""

    run_id: str
    cause: Cause
    words: str
    """For a person, in one line."""
    note: ErrorNote | None = None
    """What its process wrote down of an error."""
    details: str = ""
    """All that Ray says of it."""

    @property
    def kind(self) -> str:
        """The failure in a word, should this be the last attempt."""
        return self.note.kind if self.note else KINDS.get(self.cause, self.cause)

    @property
    def message(self) -> str:
        """The failure in a sentence."""
        return self.note.message if self.note else self.words

    @property
    def traceback(self) -> str:
        """Everything that is known, over several lines."""
        return self.note.traceback if self.note else self.details or self.words


class Decision(Enum):
    """What to do when an attempt broke off."""

    GO_ON = "elsewhere, uncounted"
    RESTART = "from its last checkpoint, counted"
    GIVE_UP = "the trial has failed; the others go on"
    STOP_ALL = "the others would meet the same error"


def decide(history: tuple[Break, ...], broke: Break) -> Decision:
    """Decide what follows a break; history: all earlier ones of this start, of whatever trial."""
    breaks = (*history, broke)
    if broke.note and broke.note.comes_again:
        return Decision.GIVE_UP
    if broke.note and len(_trials_with(breaks, broke.note)) >= SAME_ERROR_STOPS:
        return Decision.STOP_ALL
    if broke.cause == "lost node":
        is_patient = num_breaks(breaks, broke.run_id, lost=True) <= MAX_LOST_NODES
        return Decision.GO_ON if is_patient else Decision.GIVE_UP
    if num_breaks(breaks, broke.run_id, lost=False) <= MAX_RESTARTS:
        return Decision.RESTART
    return Decision.GIVE_UP


def num_breaks(breaks: tuple[Break, ...], run_id: str, *, lost: bool) -> int:
    """Return how often a trial broke off because its node was lost, or for any other cause."""
    causes = [each.cause for each in breaks if each.run_id == run_id]
    return sum((cause == "lost node") == lost for cause in causes)


def _trials_with(breaks: tuple[Break, ...], note: ErrorNote) -> set[str]:
    """Return the trials that have met this error."""
    return {b.run_id for b in breaks if b.note and b.note.signature == note.signature}
