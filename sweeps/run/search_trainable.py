"""What Tune runs in the process of a search's trial.

What a trial needs is imported there: a driver without torch starts the search seconds earlier.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import tune

from sweeps.plan.search_space import Range, SearchSpace
from sweeps.stages.task import SearchTask
from wsss.config import RunConfig
from wsss.overrides import apply_overrides

if TYPE_CHECKING:
    from wsss.training.process import Process


def drawn_trial(space: dict[str, Any], task: SearchTask) -> None:
    """Run a trial whose settings the sampler drew; Tune calls this in a process of its own."""
    from sweeps.stages.search_trial import search_trial

    ranges = SearchSpace(tuple(Range(**r) for r in space["ranges"]))
    base = RunConfig.model_validate(task.config)
    config = apply_overrides(base, ranges.round(space)).model_dump(mode="json")
    _report(search_trial, replace(task, config=config), space["cpus"])


def closing_trial(space: dict[str, Any], tasks: dict[str, SearchTask]) -> None:
    """Finish a chosen trial and score it on the held-out half; Tune calls this."""
    from sweeps.stages.search_trial import held_out_trial

    _report(held_out_trial, tasks[space["cam_id"]], space["cpus"])


def _report(
    run: Callable[[SearchTask, "Process"], Iterator[dict[str, float]]],
    task: SearchTask,
    cpus: float,
) -> None:
    """Report a trial's records to Tune.

    A training that diverged or does not learn is worth 0 % and is not repeated.
    """
    from sweeps.store.failures import failure_kind
    from wsss.training.loop import DivergedError
    from wsss.training.orphans import end_with_raylet
    from wsss.training.prior import NotLearningError
    from wsss.training.process import Process, pick_device

    end_with_raylet()
    epoch = 0.0
    try:
        for record in run(task, Process(device=pick_device(cpus))):
            epoch = record["epoch"]
            tune.report(record)
    except (DivergedError, NotLearningError) as error:
        worth = {"epoch": epoch + 1, "objective": 0.0, "threshold": 0.0}
        tune.report({**worth, "failed": failure_kind(error), "message": str(error)})
