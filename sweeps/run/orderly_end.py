"""How a start of the driver ends before its work does: by a signal, or when the budget is spent.

Both ask for an orderly end: nothing starts any more, and what is at work is asked to save what it
has and to end (`Place.is_ending`). So nothing is lost but a scoring at work, which is short.
"""

from dataclasses import dataclass

from sweeps.run.budget import Budget
from sweeps.run.signals import Interrupts

ORDERLY = (
    "{why}: starting no more {noun}s. Those running, if any, save a checkpoint and end; another "
    "signal stops all at once, and work since the last checkpoint is repeated."
)


@dataclass
class OrderlyEnd:
    """Says whether work may still start. noun: what a piece of work is called."""

    interrupts: Interrupts
    budget: Budget | None = None
    noun: str = "trial"

    def reason(self) -> str | None:
        """Return why nothing more may start; None if it may."""
        if self.interrupts.requested:
            return self.interrupts.requested
        return self.budget.reason() if self.budget else None

    def words(self) -> str:
        """Return a sentence on the end for a person."""
        return ORDERLY.format(why=self.reason(), noun=self.noun)
