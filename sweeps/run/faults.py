"""What to do when the attempt at a trial breaks off: `decide`, a pure function of what happened.

A trial whose process died, hung or met an unexpected error is restarted from its last checkpoint,
MAX_RESTARTS times. A lost node is nobody's fault and is counted separately. An unexpected error
that several trials meet is a fault in the code, and the others would meet it too. A foreseen error,
such as a broken picture, would come again, but may concern one trial alone.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sweeps.store.failures import ErrorNote

MAX_RESTARTS = 2
"""Restarts of a trial whose process died, hung or raised an unexpected error."""

MAX_LOST_NODES = 50
"""Restarts of a trial whose node was lost: preemption is no failure, but must end some time."""

SAME_ERROR_STOPS = 3
"""Number of distinct trials whose common error stops all. One trial may meet it repeatedly."""

Cause = Literal["failed", "hang", "killed", "preempted"]
"""In the ledger's words. failed: by an error; preempted: its node was lost."""


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
        return str(self.note) if self.cause == "failed" else self.note.message


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
    if broke.note.comes_again:
        return Decision.GIVE_UP
    met = {
        each.run_id
        for each in (*history, broke)
        if each.cause == broke.cause == "failed" and each.note.signature == broke.note.signature
    }
    if len(met) >= SAME_ERROR_STOPS:
        return Decision.STOP_ALL
    count = num_alike(history, broke) + 1
    if broke.cause == "preempted":
        return Decision.GO_ON if count <= MAX_LOST_NODES else Decision.GIVE_UP
    return Decision.RESTART if count <= MAX_RESTARTS else Decision.GIVE_UP


def num_alike(breaks: tuple[Break, ...], broke: Break) -> int:
    """Return how often its trial lost its node; if it did not, how often it broke off otherwise."""
    is_lost = broke.cause == "preempted"
    own = [each for each in breaks if each.run_id == broke.run_id]
    return sum((each.cause == "preempted") == is_lost for each in own)
