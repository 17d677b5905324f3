"""A sweep's events without Ray, for dispatch, listeners, store and tracking in one process."""

import time
from collections.abc import Callable, Iterator

from benchmarks.scaling.made_up import NUM_EPOCHS
from sweeps.plan.trials import Trial
from sweeps.run.dispatch import Dispatch
from sweeps.run.subjects.tables import TrialGroup


def in_turn(trials: list[Trial], concurrent: int) -> Iterator[tuple[Trial, int]]:
    """Yield (trial, epoch) as if `concurrent` trials ran at the same pace; epoch 0 is the start.

    The first ones start at different times, so that they do not all end together.
    """
    waiting = iter(trials)
    at_work: list[tuple[Trial, int]] = []
    while True:
        while len(at_work) < concurrent and (trial := next(waiting, None)):
            at_work.append((trial, 0))
            yield trial, 0
            if len(at_work) % (1 + concurrent // NUM_EPOCHS) == 0:
                break
        if not at_work:
            return
        at_work = [(trial, epoch + 1) for trial, epoch in at_work]
        yield from at_work
        at_work = [(trial, epoch) for trial, epoch in at_work if epoch < NUM_EPOCHS]


def replay(
    dispatch: Dispatch[TrialGroup],
    trials: list[Trial],
    concurrent: int,
    write: Callable[[str, str, int], None],
) -> float:
    """Tell `dispatch` of all trials, and write their files; return the seconds in `dispatch`."""
    seconds = 0.0
    for trial, epoch in in_turn(trials, concurrent):
        if epoch:
            write(trial.run_id, trial.cam_id, epoch)
        record = {
            "epoch": float(epoch),
            "progress": epoch / NUM_EPOCHS,
            "own_seconds": 0.0,
            "run": trial.run_id,
        }
        begun = time.perf_counter()
        if epoch == 0:
            dispatch.next()  # gives them in this order
            dispatch.begun(trial.cam_id)
        else:
            dispatch.reported(trial.cam_id, record)
        if epoch == NUM_EPOCHS:
            dispatch.ended(trial.cam_id)
        seconds += time.perf_counter() - begun
    return seconds
