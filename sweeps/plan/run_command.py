"""The commands that run a sweep or a headline again, from their stored descriptions."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.plan.chains.headline import Headline, source_of
from sweeps.plan.sweep import OF_THE_DATA, Sweep
from sweeps.store.store import Store
from sweeps.tables.studies import F3
from wsss.basics.printable import command
from wsss.config import RunConfig, Settings
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS
from wsss.recipes import named_config, preset_and_recipe

if TYPE_CHECKING:  # it imports what reads data sets, which a status does not need
    from sweeps.plan.search import Search


def run_command(sweep: Sweep, store: Store | None, *more: str, num_seeds: int | None = None) -> str:
    """Return the `sweeps run` command that starts or resumes a sweep.

    more: further options. GPUs and workers are not included, as no result depends on them. Tables
    from outside the project are taken from the sweep's file, by name unless it has only these.
    store: None: for another machine, in the folder of an unpacked archive.
    num_seeds: default: the sweep's.
    """
    num_seeds = num_seeds or sweep.num_seeds
    kept = {table.name for table in sweep.own_tables}
    own = kept & {*sweep.table_names}
    words = [name for name in sweep.table_names if name not in own or own < kept]
    folder = store.sweep(sweep.part_of or sweep.name) if store else Path("sweeps") / sweep.name
    words += ["--table", str(folder / "sweep.json")] if own else []
    words += _of_settings(sweep) + (["--store", store.address] if store else [])
    words += ["--seeds", str(num_seeds)] if num_seeds > 1 else []
    if store is None:
        return shlex.join(["sweeps", "run", *words, *more])
    return command("sweeps", "run", *words, *more)


def comparison_command(search: "Search", store: Store, num_seeds: int) -> str:
    """Return the `sweeps run` command of a search's best draw and its base, scored as in tables."""
    from sweeps.plan.search import CHEAP_LABELS, comparison_file

    # A table has seeds of its own.
    shared = CHEAP_LABELS | {key: search.base.flat()[key] for key in (*F3, "rng_seed")}
    usual = apply_overrides(named_config(search.preset), shared)
    words = ["--table", str(comparison_file(search, store)), *_of_settings(search, usual)]
    words += ["--store", store.address, "--seeds", str(num_seeds)]
    return command("sweeps", "run", *words)


def headline_command(headline: Headline, store: Store, rng_seed: int | None = None) -> str:
    """Return the `sweeps headline` command that starts or resumes a headline.

    rng_seed: of the segmentation networks; default: the headline's.
    """
    sweep, chains = headline.sweep, headline.chains
    preset, _ = preset_and_recipe(sweep.preset)
    cell = "best" if headline.chosen_by_masks else headline.cell
    words = [*map(source_of, chains), "--cell", cell, *_of_settings(sweep)]
    network = chains[0].segmentation
    if rng_seed is not None:
        network = network.model_copy(update={"rng_seed": rng_seed})
    start = {"weights": sweep.base.network.weights}
    usual = DEEPLAB_PRESETS[preset].model_copy(update=start)
    words += _assignments("--set-segmentation", network, usual)
    for labels in [chain.labels for chain in chains if chain.labels][:1]:
        named = LABEL_PRESETS[preset].model_copy(update={"refinement": labels.refinement})
        words += _assignments("--set-labels", labels, named)
    words += ["--eval-split", chains[0].eval_split, "--store", store.address]
    if headline.export:
        words += ["--export", headline.export]
    return command("sweeps", "headline", *words)


def _of_settings(sweep: "Sweep | Search", usual: RunConfig | None = None) -> list[str]:
    """Return the options for preset, data, weights and settings.

    usual: settings that need no option; default: the preset's.
    """
    usual, base = usual or named_config(sweep.preset), sweep.base
    preset, recipe = preset_and_recipe(sweep.preset)
    words = ["--preset", preset, "--data", str(sweep.data)]
    words += ["--recipe", recipe] if recipe != "default" else []
    if base.network.weights != usual.network.weights:
        words += ["--weights", str(sweep.weights_file or base.network.weights)]
    return words + _assignments("--set", base, usual, (*OF_THE_DATA, "network.weights"))


def _assignments(
    option: str, ours: Settings, usual: Settings, left_out: tuple[str, ...] = ()
) -> list[str]:
    """Return an option for each setting that differs from the usual one."""
    known = usual.flat()
    return [
        word
        for key, value in ours.flat().items()
        if value != known.get(key) and key not in left_out
        for word in (option, f"{key}={json.dumps(value)}")
    ]
