"""Options that several commands share."""

import atexit
import gc
import inspect
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from sweeps.report.document import Records
from sweeps.store.rooms import Kind
from sweeps.tables.table import MAX_SEEDS
from wsss.basics.printable import quoted
from wsss.training.execution import Execution

if TYPE_CHECKING:
    from sweeps.plan.sweep import BaseOptions, Sweep
    from sweeps.run.driver import Subject
    from sweeps.run.ray.resources import Resources
    from sweeps.store.store import Store
    from wsss.config import Settings
    from wsss.data.report import DataReport
    from wsss.training.diagnosis.learning import PriorLimits

S = TypeVar("S", bound="Settings")
T = TypeVar("T")

EXECUTION, LIMITS = "Execution", "Failures and limits"
"""Headings of options in the help; all others come first."""

Preset = Annotated[
    str | None,
    typer.Option(
        help="tiny (default for drawn data) | short (default for other data; laptop) | paper, irn "
        "(full, GPUs)"
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        help="a reading of the paper's open points, applied to the preset: default | literal | "
        "irn | seam | puzzle_cam"
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="folder in VOC layout; drawn | drawn-glare | drawn-dim: a small data set, drawn first"
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="imagenet_v1 | imagenet_v2 | none | weights file of the backbone, .pth or .safetensors"
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="replace a setting of the preset, e.g. train.lr=0.01; repeatable; `wsss settings` "
        "lists all",
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="WSSS_STORE", help="where results are kept: folder or s3://bucket/..."
    ),
]
SweepName = Annotated[
    str | None, typer.Option("--sweep", help="name of the sweep; default: the last one started")
]
Address = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=EXECUTION,
        help="Ray cluster to join: `auto` on one of its nodes, or HOST:PORT of its head; default: "
        "start Ray on this machine",
    ),
]
Seeds = Annotated[
    int, typer.Option(min=1, max=MAX_SEEDS, help="trainings per configuration, seeds 0, 1, ...")
]
Recheck = Annotated[
    bool, typer.Option("--recheck", help="read the whole data set again, even if unchanged")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=EXECUTION,
        help="Ray Train workers per training; 0: train in the trial or task; default: 1 with "
        "--gpus, else 0",
    ),
]
Cpus = Annotated[
    float, typer.Option(min=0.1, rich_help_panel=EXECUTION, help="CPUs per trial, task or worker")
]
Gpus = Annotated[
    float,
    typer.Option(min=0, rich_help_panel=EXECUTION, help="GPUs per trial, task or worker, e.g. 0.5"),
]
LoaderWorkers = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=EXECUTION,
        help="data loading processes per training process; default: depends on the machine with a "
        "GPU, else 0",
    ),
]
MicroBatch = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        rich_help_panel=EXECUTION,
        help="images per forward pass of each process, whose gradients are summed over the batch; "
        "auto: as many as fit into memory",
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="M",
        rich_help_panel=EXECUTION,
        help="also save a checkpoint within an epoch, M minutes after the last one; 0: only "
        "between epochs",
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", rich_help_panel=LIMITS, help="run failed trials again")
]
MaxConcurrent = Annotated[
    int | None, typer.Option(min=1, rich_help_panel=EXECUTION, help="trials at a time")
]
WarnsAfter = Annotated[
    int,
    typer.Option(
        "--prior-warns-after",
        min=0,
        metavar="N",
        rich_help_panel=LIMITS,
        help="warn if L_cls after N iterations is not clearly below that of predicting the label "
        "frequencies (the label prior); 0: never",
    ),
]
FailsAfter = Annotated[
    int,
    typer.Option(
        "--prior-fails-after",
        min=0,
        metavar="N",
        rich_help_panel=LIMITS,
        help="end a training as failed (`not learning`) if L_cls after N iterations is still not "
        "clearly below that; 0: never",
    ),
]
Probe = Annotated[
    int | None,
    typer.Option(
        min=10,
        metavar="N",
        help="only try the first N steps of each distinct training: whether it trains, how fast, "
        "in how much memory, and what the plan will cost; keeps nothing",
    ),
]
Notify = Annotated[
    str | None,
    typer.Option(
        metavar="CMD",
        help="shell command to run once at the end; $SWEEP_STATE is done, failed or interrupted, "
        "$SWEEP_TEXT says more (docs/using.md)",
    ),
]
AllAsJson = Annotated[bool, typer.Option("--json", help="print everything as JSON")]
AsJson = Annotated[bool, typer.Option("--json", help="print a row per cell as JSON")]
AsCsv = Annotated[
    bool, typer.Option("--csv", help="print a row per cell as CSV: paper, mean, SD, seeds, state")
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        rich_help_panel=LIMITS,
        help="resume half-trained networks of other code",
    ),
]


def with_options_of(
    *functions: Callable[..., Any], without: Container[str] = (), own_first: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Give a command the parameters of these functions as options, except those it has itself.

    It gets their values as `**given`, by name, for `call`. without: names to leave out; own_first:
    whether the help shows the command's own options above theirs, not below.
    """
    signatures = [inspect.signature(function).parameters for function in functions]
    more = {n: p for known in signatures for n, p in known.items() if n not in without}

    def extend(function: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(function).parameters
        mine = {n: p for n, p in own.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        both = (mine if own_first else {}) | more | mine
        by_name = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in both.values()]
        function.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
        function.__annotations__ |= {name: each.annotation for name, each in both.items()}
        return function

    return extend


def call(function: Callable[..., T], given: Mapping[str, Any]) -> T:
    """Call a function with those of the given values that it has parameters for."""
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in given.items() if name in names})


def words_of(command: Any, given: Mapping[str, object]) -> list[str]:
    """Return the command-line words for these values by name, without those at their default.

    command: `typer.Context.command`.
    """
    words = list[str]()
    for parameter in command.params:
        value = given.get(parameter.name, parameter.default)
        if value == parameter.default:
            continue
        option = parameter.opts[:1] if parameter.param_type_name == "option" else []
        for each in value if isinstance(value, list | tuple) else [value]:
            words += option if each is True else [*option, str(each)]
    return words


def execution(
    loader_workers: LoaderWorkers = None,
    micro_batch: MicroBatch = "auto",
    checkpoint_minutes: CheckpointMinutes = 10.0,
) -> Execution:
    """Return how to train. Raises ConfigError for a wrong --micro-batch."""
    from wsss.overrides import ConfigError

    images = None
    if micro_batch != "auto":
        images = int(micro_batch) if micro_batch.isdecimal() and len(micro_batch) < 10 else 0
        if images < 1:
            raise ConfigError(
                f"--micro-batch {quoted(micro_batch)}: give the number of images per forward, 1 or "
                "more, or auto"
            )
    return Execution(loader_workers, images, checkpoint_minutes)


@with_options_of(execution, own_first=True)
def resources(
    address: Address = None,
    workers: Workers = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    max_concurrent: MaxConcurrent = None,
    **given: Any,
) -> "Resources":
    """Return what a sweep may use. Raises ConfigError or ClusterError for wrong options."""
    how = call(execution, given)
    from sweeps.run.ray.resources import Resources

    return Resources(address, workers, cpus, gpus, max_concurrent, how)


def reached(asked: "Resources", store: str, kind: Kind) -> "Resources":
    """Return resources whose cluster can be joined, tried before anything is read or planned.

    Raises ClusterError, unless the store holds something of this kind (sweep, search, headline), so
    that nothing may be left to run: then the driver tries it if something is.
    """
    from sweeps.store.store import open_store

    if not open_store(store).driven(kind):
        asked.require_cluster()
    return asked


def prior_limits(warns_after: WarnsAfter = 100, fails_after: FailsAfter = 500) -> "PriorLimits":
    """Return when to warn of, and when to end, a training that stays at the label prior."""
    from wsss.training.diagnosis.learning import PriorLimits

    return PriorLimits(warns_after, fails_after)


def run_to_end(
    subject: "Subject",
    may_use: "Resources",
    notify: str | None,
    then: Callable[[], int] = lambda: 0,
) -> NoReturn:
    """Run a sweep, search or headline, then the user's own command; exit with the run's code.

    then: called after a run that ended well; returns the exit code.
    """
    from sweeps.run.driver import drive
    from sweeps.run.notify import then_notify

    raise typer.Exit(
        then_notify(notify, subject.store, subject.what, lambda: drive(subject, may_use) or then())
    )


def store_there(ctx: typer.Context, store: str | None) -> str | None:
    """Return a cluster's store if it was named: WSSS_STORE here is for this machine."""
    source = ctx.get_parameter_source("store")
    return store if source and source.name == "COMMANDLINE" else None


def opened(address: str) -> "Store":
    """Return the store at an address, with what others have put into its bucket."""
    from sweeps.store.store import open_store

    store = open_store(address)
    store.remote.require_answer()
    store.pull_results()
    return store


def opened_sweep(address: str, name: str | None) -> "tuple[Store, Sweep]":
    """Return a store, as `opened`, and its sweep of this name, by default the last one started."""
    from sweeps.plan.sweep import load_sweep

    store = opened(address)
    return store, load_sweep(store, name)


def data_folder(data: str) -> Path:
    """Return the data set's folder; a drawn one is drawn first if it does not exist."""
    from wsss.data.drawn.folder import DRAWN, draw_voc

    if data not in DRAWN:
        return Path(data)
    root = Path("data") / data
    if not root.exists():
        say(f"drawing a small data set into {root}")
    return draw_voc(root, kind=DRAWN[data])


def print_cells(store: "Store", sweep: "Sweep", *, as_json: bool) -> None:
    """Print a row per cell for scripts, as JSON or as CSV."""
    import json

    from sweeps.report.formats.csv_file import records_text
    from sweeps.report.live.status import cell_rows

    cells = cell_rows(sweep, store)
    if as_json:
        about = {"sweep": sweep.name, "description": sweep.describe()}
        print(json.dumps({**about, "cells": cells}))
    else:
        print(records_text(Records.of(cells)), end="")


def refuse_idle(where: str, context: typer.Context, *names: str) -> None:
    """Raise ConfigError for options that are given where they have no effect."""
    from wsss.overrides import ConfigError

    words = words_of(context.command, {name: context.params[name] for name in names})
    if words:
        raise ConfigError(f"{' '.join(words)}: no effect {where}; leave it out")


def require_one_of(**given: bool) -> None:
    """Raise ConfigError if two of these options are given."""
    from wsss.overrides import ConfigError

    asked = [f"--{name.replace('_', '-')}" for name, is_given in given.items() if is_given]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} exclude each other; give one of them")


def base_options(
    preset: Preset = None,
    recipe: Recipe = "default",
    data: Data = "drawn",
    weights: Weights = None,
    settings: Set = None,
    recheck: Recheck = False,
) -> "BaseOptions":
    """Return the options that all trainings share; a drawn data set is drawn if necessary.

    Raises ConfigError.
    """
    from sweeps.plan.sweep import BaseOptions
    from wsss.overrides import parse_assignments

    asked, named = parse_assignments(settings or []), preset_named(preset, recipe, data)
    return BaseOptions(named, data_folder(data), weights, asked, recheck)


def preset_named(preset: str | None, recipe: str, data: str) -> str:
    """Return a preset, by default that of the data set, with its recipe."""
    from wsss.recipes import with_recipe

    return with_recipe(preset or default_preset(data), recipe)


def default_preset(data: str) -> str:
    """Return the default preset for a data set."""
    from wsss.data.drawn.folder import DRAWN

    return "tiny" if data in DRAWN else "short"


def say(text: str) -> None:
    """Print a message for a person on stderr."""
    print(text, file=sys.stderr)


def say_idle(
    asked: Iterable[str], configs: Iterable[S], id_of: Callable[[S], object], option: str = "--set"
) -> None:
    """Tell a person which of the settings have no effect in any configuration.

    option: with which they were given.
    """
    from wsss.identity import idle

    left = list(asked)
    for config in configs:
        left = idle(config, left, id_of)
    if left:
        say(f"no effect, as the part it belongs to is switched off: {option} {', '.join(left)}")


def say_labels_from_masks(report: "DataReport", split: str) -> None:
    """Tell a person how many images of a split have image-level labels only from their masks.

    Not for drawn data, which has no XML on purpose.
    """
    from wsss.data.drawn.folder import RECORD

    from_mask = report.labels_from_mask[split]
    if from_mask and not (report.root / RECORD).exists():
        say(
            f"{split}: {from_mask} of {report.num_images[split]} images have no XML; their "
            "image-level labels come from their masks"
        )


def leave_memory_to_the_system() -> None:
    """Let this process end without collecting its modules, which saves a seventh of a short run.

    Only for commands that close all of their files: objects in reference cycles are no longer
    collected at the end, and would not close theirs.
    """
    atexit.register(gc.freeze)
