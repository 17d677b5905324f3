"""What Tune runs in a trial's process.

What a trial needs is imported here: a driver without torch starts seconds earlier.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from sweeps.plan.search import Search
from sweeps.run.resources import Resources
from sweeps.stages.stage import Place
from wsss.config import RunConfig

if TYPE_CHECKING:
    from wsss.training.process import Process

Records = Iterator[dict[str, float]]


def sweep_trial(
    space: dict[str, Any],
    groups: dict[str, tuple[RunConfig, ...]],
    place: Place,
    resources: Resources,
) -> None:
    """Train `space["cam_id"]` and bring its scores to their end, inline or under Ray Train."""
    from sweeps.run.ray_train import Workers, end_with_raylet, fit
    from wsss.training.process import Process, pick_device

    end_with_raylet()
    cam_id = space["cam_id"]
    item = groups[cam_id], place
    if resources.inline:
        for record in on_one_rank(item, Process(device=pick_device(resources.cpus))):
            tune.report(record)
        return
    fit(
        on_one_rank,
        item,
        Workers(resources.num_workers, resources.gpus, resources.cpus),
        name=cam_id,
        storage=place.store.root / "ray_train",
        callbacks=[TuneReportCallback()],
    )


def on_one_rank(item: tuple[tuple[RunConfig, ...], Place], process: "Process") -> Records:
    """Do this rank's part in a training and its scores; item: their configurations, where."""
    from sweeps.stages.trial import run_group

    configs, place = item
    return run_group(configs, replace(place, rank=process))


def drawn_trial(space: dict[str, Any], search: Search, place: Place, cpus: float) -> None:
    """Run a trial of a search with the drawn `space["settings"]`."""
    from sweeps.stages.trial import search_trial

    _report(search_trial, search, space["settings"], place, cpus)


def closing_trial(space: dict[str, Any], search: Search, place: Place, cpus: float) -> None:
    """Finish a trial with `space["settings"]`, and score it on the held-out half."""
    from sweeps.stages.trial import held_out_trial

    _report(held_out_trial, search, space["settings"], place, cpus)


def _report(
    run: Callable[[RunConfig, str, Place], Records],
    search: Search,
    settings: dict[str, float],
    place: Place,
    cpus: float,
) -> None:
    """Report the records of a search's trial to Tune.

    A training that diverged or does not learn is worth 0 % and is not repeated. Of an unforeseen
    error, a note is left for the driver.
    """
    from sweeps.run.ray_train import end_with_raylet
    from sweeps.store.errors import StoreError
    from sweeps.store.failures import failure_kind, note_of, write_note
    from wsss.identity import cam_id
    from wsss.training.learning import NotLearningError
    from wsss.training.loop import DivergedError
    from wsss.training.process import Process, pick_device

    end_with_raylet()
    config, epoch = search.config(settings), 0.0
    folder = place.store.cam(cam_id(config)).path
    place = replace(place, rank=Process(device=pick_device(cpus)), stack_folder=folder)
    try:
        for record in run(config, search.objective, place):
            epoch = record["epoch"]
            tune.report(record)
    except (DivergedError, NotLearningError) as error:
        worth = {"epoch": epoch + 1, "objective": 0.0, "threshold": 0.0}
        tune.report({**worth, "failed": failure_kind(error), "message": str(error)})
    except StoreError:
        raise  # as of a training that somebody else holds, who will let go
    except Exception as error:
        write_note(folder, note_of(error))
        raise
