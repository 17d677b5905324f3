"""A sweep's ledger under a clock that is set by hand."""

from made_up.finished import finished_sweep

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


def play(ledger: Ledger, clock: Clock, script: str, trial: Trial = FIRST) -> None:
    """Let things happen to a trial, one after the other.

    run: its process starts; 1.5: so many hours go by; epoch=2: an epoch ends; scored=2: a part of
    the scoring does; preempted, hang: its attempt breaks off; any other word: its new status.
    """
    for word in script.split():
        what, _, number = word.partition("=")
        if what == "epoch":
            ledger.update(trial, status="running", record={"epoch": float(number), "loss": 0.5})
        elif what == "scored":
            ledger.update(trial, status="running", record={"epoch": float(number)})
        elif what in ("preempted", "hang"):
            ledger.ended(trial.cam_id, what)  # type: ignore[arg-type]
        elif what[0] in "-.0123456789":
            clock.hours += float(what)
        else:
            ledger.update(trial, status="running" if what == "run" else what)
