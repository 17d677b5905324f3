"""What to do when the attempt at a trial breaks off: `decide`, a pure function of what happened.

A trial whose process died, hung or met an unexpected error is restarted from its last checkpoint,
MAX_RESTARTS times. A lost node is nobody's fault and is counted separately. An unexpected error
that several trials meet is a fault in the code, and the others would meet it too. A foreseen error,
such as a broken picture, would come again, but may concern one trial alone.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sweeps.store.attempts import Reason
from sweeps.store.failures import ErrorNote

MAX_RESTARTS = 2
"""Restarts of a trial whose process died, hung or raised an unexpected error."""

MAX_LOST_NODES = 50
"""Restarts of a trial whose node was lost: preemption is no failure, but must end some time."""

SAME_ERROR_STOPS = 3
"""Number of distinct trials whose common error stops all. One trial may meet it repeatedly."""

Cause = Literal["error", "hang", "death", "lost node"]

LEDGER_REASONS: dict[Cause, Reason] = {
    "error": "failed",
    "hang": "hang",
    "death": "killed",
    "lost node": "preempted",
}
"""The ledger's word for each cause."""


@dataclass(frozen=True)
class Break:
    """Why one attempt at a trial broke off."""

    run_id: str
    cause: Cause
    note: ErrorNote
    """The error that its process noted, or what Ray says of its end."""

    @property
    def words(self) -> str:
        """One line for a person."""
        return str(self.note) if self.cause == "error" else self.note.message


def unexplained(run_id: str, cause: Cause, words: str, details: str = "") -> Break:
    """Return a break of which the process left no note; details: all that Ray says."""
    return Break(run_id, cause, ErrorNote("died", words, "", details or words))


class Decision(Enum):
    """What to do when an attempt broke off."""

    GO_ON = "resume on another node; not counted as a restart"
    RESTART = "resume from the last checkpoint; counted"
    GIVE_UP = "the trial has failed; the others continue"
    STOP_ALL = "the others would meet the same error"


def decide(history: tuple[Break, ...], broke: Break) -> Decision:
    """Decide what to do; history: all earlier breaks of this start, of any trial."""
    breaks = (*history, broke)
    if broke.note.comes_again:
        return Decision.GIVE_UP
    if broke.cause == "error":
        errors = [each for each in breaks if each.cause == "error"]
        met = {each.run_id for each in errors if each.note.signature == broke.note.signature}
        if len(met) >= SAME_ERROR_STOPS:
            return Decision.STOP_ALL
    if broke.cause == "lost node":
        is_patient = num_breaks(breaks, broke.run_id, lost=True) <= MAX_LOST_NODES
        return Decision.GO_ON if is_patient else Decision.GIVE_UP
    if num_breaks(breaks, broke.run_id, lost=False) <= MAX_RESTARTS:
        return Decision.RESTART
    return Decision.GIVE_UP


def num_breaks(breaks: tuple[Break, ...], run_id: str, *, lost: bool) -> int:
    """Return how often a trial broke off: because its node was lost, or for all other causes."""
    causes = [each.cause for each in breaks if each.run_id == run_id]
    return sum((cause == "lost node") == lost for cause in causes)
