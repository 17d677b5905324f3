"""A sweep's events without Ray: what Events, listeners, store and tracking bear in one process."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

from scaling_made_up import NUM_EPOCHS
from sweeps.run.events import Events

from sweeps.plan.trials import Trial


def in_turn(trials: list[Trial], concurrent: int) -> Iterator[tuple[Trial, int]]:
    """Yield (trial, epoch) as if so many ran at once at the same pace; epoch 0 is its start.

    The first ones begin spread over an epoch's stages, so that they do not all end together.
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
    events: Events,
    trials: list[Trial],
    concurrent: int,
    write: Callable[[str, str, int], None],
) -> float:
    """Tell `events` of all trials, whose files are written meanwhile; return what it took alone.

    Seconds within Tune's hooks, those of writing left out.
    """
    seconds = 0.0
    stand_ins = {t.run_id: SimpleNamespace(config={"run_id": t.run_id}) for t in trials}
    for trial, epoch in in_turn(trials, concurrent):
        if epoch:
            write(trial.run_id, trial.cam_id, epoch)
        record = {"epoch": float(epoch), "progress": epoch / NUM_EPOCHS, "own_seconds": 0.0}
        begun = time.perf_counter()
        stand_in = stand_ins[trial.run_id]
        if epoch == 0:
            events.on_trial_start(0, [], stand_in)
        else:
            events.on_trial_result(0, [], stand_in, record)
        if epoch == NUM_EPOCHS:
            events.on_trial_complete(0, [], stand_in)
        seconds += time.perf_counter() - begun
    return seconds
