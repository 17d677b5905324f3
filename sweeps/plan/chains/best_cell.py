"""Which configuration the headline uses: the best one of the sweeps in the store.

The measure is the held-out mIoU: the threshold is chosen on one half of the images, and the other
half is scored with it. Only ended sweeps with the same data, backbone and preset settings count.
"""

from statistics import fmean
from typing import Any, NamedTuple

from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import Sweep, load_sweep
from sweeps.plan.trials import Trial
from sweeps.store.errors import StoreError
from sweeps.store.store import ForeignFileError, Store
from wsss.basics.printable import mean_of_seeds
from wsss.config import RunConfig
from wsss.identity import config_id

BEST = "best"
"""The command line's word for it."""
DEFAULT_CELL = "III[yes,yes]"


class NoBestCellError(StoreError):
    """The store has nothing to choose from. The message says why, and the remedy."""


class Choice(NamedTuple):
    """Which cell the headline uses, and why."""

    cell: str
    why: str
    by_masks: bool
    """Whether pixel masks of training images chose it."""


def best_cell(store: Store, asked: Sweep) -> Choice:
    """Return the best finished configuration of the ended sweeps with a sweep's base settings.

    A configuration counts if all seeds that a sweep planned for it are finished. Those scored on
    other images, with another backbone, or that only repeat a seed are left out. Of equals, the one
    planned first wins. Raises NoBestCellError if there is none.
    """
    base = asked.base
    sweeps, unfinished = _ended_sweeps(store, base)
    found: dict[str, tuple[Trial, dict[str, Any]]] = {}
    for sweep in sweeps:
        for trials in sweep.plan.configs:
            config = trials[0].config
            runs = {t.run_id: store.run(t.run_id).metrics() or {} for t in trials}
            held_out = {run_id: figures.get("miou_held_out") for run_id, figures in runs.items()}
            if _comparable(config, base) and None not in held_out.values():
                found.setdefault(config_id(config), (trials[0], {}))[1].update(held_out)
    if not found:
        raise NoBestCellError(_nothing(store, unfinished, asked))
    trial, mious = max(found.values(), key=lambda one: fmean(one[1].values()))
    why = (
        f"CAMs of {trial.cells[0]}: the best held-out pseudo-label mIoU "
        f"({fmean(mious.values()):.2f}, {mean_of_seeds(len(mious))}) of {len(found)} finished "
        f"configurations in {', '.join(sweep.name for sweep in sweeps)}. The choice saw the pixel "
        f"masks of the {sweeps[0].num_eval_images} scored images ({base.data.eval_split}), and the "
        "best of several noisy figures is too high on average"
    )
    return Choice(trial.cells[0], why, by_masks=True)


def _ended_sweeps(store: Store, base: RunConfig) -> tuple[list[Sweep], list[Sweep]]:
    """Return the sweeps with these settings: the ended ones, and those with trials to do."""
    ended, unfinished = list[Sweep](), list[Sweep]()
    for name in store.sweep_names():
        try:
            sweep = load_sweep(store, name)
        except ForeignFileError:  # of another version
            continue
        if sweep.base != base or sweep.own_tables:  # a headline uses the project's cells only
            continue
        runs = [store.run(trial.run_id) for trial in sweep.plan.trials]
        has_ended = all(run.metrics() or run.failure() for run in runs)
        (ended if has_ended else unfinished).append(sweep)
    return ended, unfinished


def _comparable(config: RunConfig, base: RunConfig) -> bool:
    return (
        config.data == base.data
        and config.network.backbone == base.network.backbone
        and config.repeat == base.repeat
    )


def _nothing(store: Store, unfinished: list[Sweep], asked: Sweep) -> str:
    if unfinished:
        return (
            f"{store.root}: --cell best needs an ended sweep, and {unfinished[0].name} still has "
            "trials to do; name another --cell, or finish it with: "
            f"{run_command(unfinished[0], store)}"
        )
    return (
        f"{store.root}: --cell best has nothing to choose from: no ended sweep of the same data, "
        "preset and settings has a held-out mIoU; name another --cell, or run one with: "
        f"{run_command(asked, store)}"
    )


def choose_cell(store: Store, asked: Sweep, wanted: str | None) -> Choice:
    """Return the wanted cell; for BEST the best one; for None the best one, or else DEFAULT_CELL.

    asked: a sweep with the settings that are asked for.
    Raises NoBestCellError for BEST if the store has nothing to choose from.
    """
    if wanted not in (None, BEST):
        return Choice(wanted, f"CAMs of {wanted}, as --cell asks", by_masks=False)
    try:
        return best_cell(store, asked)
    except NoBestCellError:
        if wanted == BEST:
            raise
        why = (
            f"CAMs of {DEFAULT_CELL}, the paper's full method: the store has no ended sweep of "
            "this data, preset and settings to choose a better one from"
        )
        return Choice(DEFAULT_CELL, why, by_masks=False)
