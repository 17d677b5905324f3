"""The command `sweeps search`: look for better alpha, beta and lambda, apart from all tables."""

from typing import Annotated

import typer

from sweeps.cli.options import (
    Address,
    CheckpointMinutes,
    Data,
    FailsAfter,
    LoaderWorkers,
    MaxConcurrent,
    MicroBatch,
    Notify,
    Preset,
    Recheck,
    Recipe,
    Set,
    StoreOption,
    WarnsAfter,
    Weights,
    data_folder,
    default_preset,
    execution,
    opened,
    say_idle,
    say_labels_from_masks,
)
from wsss.errors import explained


def search(
    preset: Preset = None,
    recipe: Recipe = "default",
    data: Data = "drawn",
    weights: Weights = None,
    settings: Set = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="a range to search, e.g. transfer.lambda_s=0.05:2:log; repeatable; replaces the "
            "default ranges of lambda, alpha and beta"
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="trials in all; raise it to search further")
    ] = 20,
    objective: Annotated[
        str, typer.Option(help="mIoU of the search half at its best threshold, or fixed: at .15")
    ] = "best",
    rng_seed: Annotated[
        int, typer.Option(min=0, help="of the draws; --set rng_seed=... is a training's")
    ] = 0,
    store: StoreOption = "results",
    recheck: Recheck = False,
    address: Address = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="CPUs per trial")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per trial, e.g. 0.5")] = 0.0,
    max_concurrent: MaxConcurrent = None,
    loader_workers: LoaderWorkers = None,
    micro_batch: MicroBatch = "auto",
    checkpoint_minutes: CheckpointMinutes = 10.0,
    warns_after: WarnsAfter = 100,
    fails_after: FailsAfter = 500,
    notify: Notify = None,
) -> None:
    """Search alpha, beta and lambda; a search is no table. Give it again to resume.

    Optuna draws, ASHA stops poor trials early, one half of the scored images gives the objective,
    and the best three and the base (nothing drawn) are scored on the other half at the end. A trial
    trains in one process, without Ray Train.
    """
    from sweeps.plan.search import make_search, parse_space
    from sweeps.run.driver import drive
    from sweeps.run.notify import Started, then_notify
    from sweeps.run.ray.resources import Resources, joinable
    from sweeps.run.subjects.search import DrivenSearch
    from wsss.identity import run_id
    from wsss.overrides import parse_assignments
    from wsss.recipes import with_recipe
    from wsss.training.learning import PriorLimits

    with explained():
        how = execution(loader_workers, micro_batch, checkpoint_minutes)
        resources = joinable(Resources(address, 0, cpus, gpus, max_concurrent, how))
        results = opened(store)
        search_space, overrides = parse_space(space or []), parse_assignments(settings or [])
        planned, report = make_search(
            search_space,
            preset=with_recipe(preset or default_preset(data), recipe),
            data=data_folder(data),
            weights=weights,
            overrides=overrides,
            objective=objective,
            rng_seed=rng_seed,
            recheck=recheck,
        )
        say_idle(overrides, [planned.base], run_id)
        say_labels_from_masks(report, planned.base.data.train_split)
        limits = PriorLimits(warns_after, fails_after)
        subject = DrivenSearch(planned, results, samples, limits)
        started = Started(results, subject.path)
        raise typer.Exit(then_notify(notify, started, lambda: drive(subject, resources)))
