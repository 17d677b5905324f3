"""A sweep's ledger under a clock that is set by hand."""

from finished import finished_sweep

from sweeps.plan.trials import Trial
from sweeps.store.attempts import Ledger, Size
from sweeps.store.store import Store

SWEEP = finished_sweep(("VI",), 1)
FIRST, SECOND = SWEEP.plan.trials[:2]
HOUR = 3600.0
TWO_GPUS = Size(workers=2, gpus=2.0, cpus=4.0)
ONE_GPU = Size(workers=0, gpus=1.0, cpus=1.0)


class Clock:
    """A clock that is set by hand, in hours."""

    def __init__(self) -> None:
        self.hours = 100.0

    def __call__(self) -> float:
        return self.hours * HOUR


def driver(store: Store, clock: Clock, size: Size = TWO_GPUS) -> Ledger:
    """A driver's ledger, to be entered; one that is never left was killed."""
    return Ledger(store, SWEEP.name, size, clock)


def epoch(ledger: Ledger, clock: Clock, trial: Trial, number: int, *, after: float) -> None:
    """Let an epoch take so many hours."""
    clock.hours += after
    ledger.update(trial, status="running", record={"epoch": float(number), "loss": 0.5})
