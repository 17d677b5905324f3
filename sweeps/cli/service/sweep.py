"""The commands plan, run and table: a sweep of the paper's tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli import options

if TYPE_CHECKING:
    from sweeps.plan.sweep import Sweep
    from sweeps.tables.table import Table

Tables = Annotated[
    list[str] | None,
    typer.Argument(
        help="III IV V VI, also called views, modules, lambdas, attention; or a study of "
        "docs/tables.md",
        metavar="TABLE",
    ),
]
TableFiles = Annotated[
    list[Path] | None,
    typer.Option("--table", help="a table of your own, as a YAML file (docs/tables.md shows one)"),
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        help="a table of all combinations, e.g. --grid transfer.lambda_s=.1,.5 --grid "
        "transfer.lambda_bs=0,1; on the full module and both views unless --set says otherwise"
    ),
]


@options.with_options_of(options.base_options, own_first=True)
def planned_sweep(
    tables: Tables = None,
    table_files: TableFiles = None,
    grid: Grid = None,
    seeds: options.Seeds = 1,
    **given: Any,
) -> "Sweep":
    """Plan a sweep. Raises ForeseenError for wrong options."""
    from sweeps.plan.sweep import make_sweep
    from wsss.identity import run_id

    chosen = chosen_tables(tables, table_files, grid, given["settings"])
    base = options.base_options(**given)
    sweep, report = make_sweep(chosen, base, seeds)
    configs = [trial.config for trial in sweep.plan.trials]
    options.say_idle(base.settings, configs, run_id)
    varied = [word.partition("=")[0].strip() for word in grid or []]
    options.say_idle(varied, configs, run_id, "--grid")
    options.say_labels_from_masks(report, sweep.base.data.train_split)
    return sweep


@options.with_options_of(planned_sweep)
def plan(
    ctx: typer.Context,
    store: options.StoreOption = "results",
    max_concurrent: Annotated[
        int, typer.Option(min=1, help="trials at a time, for the estimated time")
    ] = 1,
    show_all: Annotated[
        bool, typer.Option("--all", help="a line per configuration, however many there are")
    ] = False,
    as_json: options.AllAsJson = False,
    **given: Any,
) -> None:
    """Show cells, distinct configurations, what is finished, and what the rest will cost.

    sweeps plan III noise-floor --seeds 3
    """
    from rich.console import Console

    from sweeps.report.live.plan_view import plan_json, print_plan
    from sweeps.report.live.status import Status

    if as_json:
        options.refuse_idle("with --json, which has the time of each trial", ctx, "max_concurrent")
    options.leave_memory_to_the_system()
    sweep = planned_sweep(**given)
    found = Status(options.opened(store), sweep)
    if as_json:
        print(json.dumps(plan_json(found)))
    else:
        print_plan(Console(), found, concurrent=max_concurrent, show_all=show_all)


@options.with_options_of(planned_sweep, options.resources, options.prior_limits)
def run(
    store: options.StoreOption = "results",
    retry_failed: options.RetryFailed = False,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0,
            rich_help_panel=options.LIMITS,
            help="GPU-hours (CPU-hours without GPUs) of the sweep, earlier runs included, after "
            "which nothing more starts",
        ),
    ] = None,
    hang_after: Annotated[
        float,
        typer.Option(
            min=0,
            max=1e9,
            rich_help_panel=options.LIMITS,
            help="seconds without progress before a trial is restarted; 0: never",
        ),
    ] = 1800.0,
    accept_changes: options.AcceptChanges = False,
    probe: options.Probe = None,
    notify: options.Notify = None,
    **given: Any,
) -> None:
    """Run what the tables lack, then print them. Run it again to resume.

    sweeps run V --data drawn --seeds 3

    Finished trials are never run again; an interrupted one continues from its last checkpoint.
    MLflow gets a copy of everything (MLFLOW_TRACKING_URI, or a SQLite file in the store).

    A gradient that is not finite ends a trial as `diverged`, a network that does not learn as `not
    learning`. Both are reported at once, and are not tried again without --retry-failed.

    With --probe N, nothing is kept: the first N optimiser steps of each distinct training are tried
    and their results printed. Exit code 0: all losses and gradients are finite and L_cls falls; 1:
    not so, or a training ends within N steps without having learnt, or --prior-fails-after would
    end it.
    """
    from sweeps.run.subjects.tables import DrivenSweep
    from sweeps.stages.stage import Conduct
    from sweeps.store.store import open_store

    own = {"retry_failed": retry_failed, "accept_changes": accept_changes}
    _refuse_beside_probe({"probe": probe, "notify": notify, "budget": budget, **own})
    may_use = options.reached(options.call(options.resources, given), store, "sweep")
    limits = options.call(options.prior_limits, given)
    if probe is not None:
        may_use.require_cluster()
    sweep = options.call(planned_sweep, given)
    if probe is not None:
        from sweeps.run.probe import probe_sweep
        from wsss.training.diagnosis.probe import ProbeOptions

        how = ProbeOptions(probe, sweep.data, sweep.weights_file, may_use.execution, limits)
        raise typer.Exit(probe_sweep(sweep, options.opened(store), may_use, how))
    conduct = Conduct(hang_after, accept_changes, limits)
    subject = DrivenSweep(
        sweep, open_store(store), conduct, retry_failed=retry_failed, budget_hours=budget
    )
    options.run_to_end(subject, may_use, notify)


def table(
    store: options.StoreOption = "results",
    sweep: options.SweepName = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Print a sweep's tables with the results so far: measured beside printed mIoU."""
    from rich.console import Console

    from sweeps.report.live.render import print_tables

    options.leave_memory_to_the_system()
    options.require_one_of(json=as_json, csv=as_csv)
    results, found = options.opened_sweep(store, sweep)
    if as_json or as_csv:
        options.print_cells(results, found, as_json=as_json)
    else:
        print_tables(Console(), found, results)


def chosen_tables(
    tables: list[str] | None,
    table_files: list[Path] | None,
    grid: list[str] | None,
    settings: list[str] | None,
) -> "list[str | Table]":
    """Return the tables of a command line. Raises ConfigError, also if there is none."""
    from sweeps.tables.find import find_tables
    from wsss.overrides import parse_assignments

    names = tables or []
    own: list[Table] = []
    if table_files:
        from sweeps.tables.own import read_tables

        for path in table_files:
            found = read_tables(path)  # several if it is a sweep.json: those named, or all
            own += [table for table in found if table.name in names] or found
    if grid:
        from sweeps.tables.own import grid_table, parse_grid

        own.append(grid_table(parse_grid(grid), parse_assignments(settings or [])))
    find_tables([*names, *(table.name for table in own)], own)
    return [*(name for name in names if name not in {table.name for table in own}), *own]


def checked_tables(given: Mapping[str, Any]) -> "list[str | Table]":
    """Return the tables named by the options of `run`, for a command that passes them on.

    given: the options' values by name. Raises ConfigError for what `run` refuses before planning.
    """
    _refuse_beside_probe(given)
    options.call(options.execution, given)
    return options.call(chosen_tables, given)


def _refuse_beside_probe(given: Mapping[str, Any]) -> None:
    """Raise ConfigError for a probe with options that only a sweep obeys."""
    for name in ("notify", "budget", "retry_failed", "accept_changes"):
        is_given = given[name] is not None and given[name] is not False
        options.require_one_of(**{"probe": given["probe"] is not None, name: is_given})
