"""Which configuration the headline uses: the best one of the sweeps in the store.

The measure is the held-out mIoU: the threshold is chosen on one half of the images, and the other
half is scored with it. Only ended sweeps with the same data, backbone and preset settings count.
"""

from statistics import fmean
from typing import Any, NamedTuple

from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import Sweep, load_sweep
from sweeps.store.errors import StoreError
from sweeps.store.store import ForeignFileError, Store
from wsss.basics.printable import mean_of_seeds
from wsss.config import RunConfig
from wsss.identity import config_id

BEST = "best"
"""The command line's word for it."""
DEFAULT_CELL = "III[yes,yes]"


class Choice(NamedTuple):
    """Which cell the headline uses, and why."""

    cell: str
    why: str
    by_masks: bool
    """Whether pixel masks of training images chose it."""


def choose_cell(store: Store, asked: Sweep, wanted: str | None) -> Choice:
    """Return the wanted cell; for BEST the best one; for None the best one, or else DEFAULT_CELL.

    asked: a sweep with the settings that are asked for.
    Raises StoreError for BEST if the store has nothing to choose from.
    """
    if wanted not in (None, BEST):
        return Choice(wanted, f"CAMs of {wanted}, as --cell asks", by_masks=False)
    ended, unfinished = _sweeps_like(store, asked.base)
    if choice := _best(store, ended, asked.base):
        return choice
    if wanted is None:
        why = (
            f"CAMs of {DEFAULT_CELL}, the paper's full method: the store has no ended sweep of the "
            "project's tables with this data, preset and settings to choose a better one from"
        )
        return Choice(DEFAULT_CELL, why, by_masks=False)
    why, remedy = (
        "has nothing to choose from: no ended sweep of the project's tables with the same data, "
        "preset and settings has a held-out mIoU",
        f"run one with: {run_command(asked, store)}",
    )
    if unfinished:
        why = f"needs an ended sweep, and {unfinished[0].name} still has trials to do"
        remedy = f"finish it with: {run_command(unfinished[0], store)}"
    raise StoreError(f"{store.address}: --cell best {why}; name another --cell, or {remedy}")


def _sweeps_like(store: Store, base: RunConfig) -> tuple[list[Sweep], list[Sweep]]:
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
        has_ended = all(run.result() or run.failure() for run in runs)
        (ended if has_ended else unfinished).append(sweep)
    return ended, unfinished


def _best(store: Store, ended: list[Sweep], base: RunConfig) -> Choice | None:
    """Return the best finished configuration of sweeps with these settings; None without any.

    A configuration counts if all seeds that a sweep planned for it are finished. Those scored on
    other images, with another backbone, or that only repeat a seed are left out. Of equals, the one
    planned first wins.
    """
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    """Id of a configuration -> its first cell, and run id -> held-out mIoU."""
    for trials in (trials for sweep in ended for trials in sweep.plan.configs):
        config = trials[0].config
        runs = {t.run_id: store.run(t.run_id).result() or {} for t in trials}
        mious = {run_id: run.get("miou_held_out") for run_id, run in runs.items()}
        if _scored_alike(config) == _scored_alike(base) and None not in mious.values():
            found.setdefault(config_id(config), (trials[0].cells[0], {}))[1].update(mious)
    if not found:
        return None
    cell, mious = max(found.values(), key=lambda one: fmean(one[1].values()))
    why = (
        f"CAMs of {cell}: the best held-out pseudo-label mIoU ({fmean(mious.values()):.2f}, "
        f"{mean_of_seeds(len(mious))}) of {len(found)} finished configurations in "
        f"{', '.join(sweep.name for sweep in ended)}. The choice saw the pixel masks of the "
        f"{ended[0].num_eval_images} scored images ({base.data.eval_split}), and the best of "
        "several noisy figures is too high on average"
    )
    return Choice(cell, why, by_masks=True)


def _scored_alike(config: RunConfig) -> tuple[object, ...]:
    return config.data, config.network.backbone, config.repeat
