"""The command `sweeps search`: look for better alpha, beta and lambda, apart from all tables."""

from typing import Annotated, Any, Literal

import typer

from sweeps.cli import options


@options.with_options_of(
    options.base_options, options.resources, options.prior_limits, without=("workers",)
)
def search(
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="a range to search, e.g. transfer.lambda_s=0.05:2:log; repeatable; replaces the "
            "default ranges of lambda, alpha and beta"
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=100_000, help="trials in total; raise it to search further")
    ] = 20,
    objective: Annotated[
        Literal["best", "fixed"],
        typer.Option(help="mIoU of the search half at its best threshold, or fixed: at .15"),
    ] = "best",
    rng_seed: Annotated[
        int, typer.Option(min=0, help="seed of the search; trainings: --set rng_seed=...")
    ] = 0,
    store: options.StoreOption = "results",
    notify: options.Notify = None,
    **given: Any,
) -> None:
    """Search alpha, beta and lambda, apart from the tables. Run it again to resume.

    sweeps search --samples 40 --space transfer.lambda_s=0.05:2:log

    Optuna draws settings and ASHA stops poor trials early, by their score on one half of the scored
    images. At the end the best three and the base, the full method as the options set it, are
    scored on the other half. A trial trains in one process, without Ray Train.
    """
    from sweeps.plan.search import make_search, parse_space
    from sweeps.run.subjects.search import DrivenSearch
    from wsss.identity import run_id

    asked = options.call(options.resources, given | {"workers": 0})
    may_use = options.reached(asked, store, "search")
    results = options.opened(store)
    ranges = parse_space(space or [])
    base = options.call(options.base_options, given)
    planned, report = make_search(ranges, base, objective=objective, rng_seed=rng_seed)
    options.say_idle(base.settings, [planned.base], run_id)
    options.say_labels_from_masks(report, planned.base.data.train_split)
    subject = DrivenSearch(planned, results, samples, options.call(options.prior_limits, given))
    options.run_to_end(subject, may_use, notify)
