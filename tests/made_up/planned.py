"""A search and a headline on a data set that does not exist, of which nothing is done."""

from pathlib import Path
from typing import Any

from made_up.finished import finished_sweep

from sweeps.plan.chains.headline import Headline, make_chains
from sweeps.plan.search import DEFAULT_SPACE, Search, SearchTrial
from sweeps.plan.sweep import Sweep
from sweeps.tables.studies import F3
from wsss.identity import cam_id
from wsss.overrides import apply_overrides
from wsss.presets import TINY_DEEPLAB
from wsss.segmentation_config import PseudoLabelConfig

SEARCH = Search(
    preset="tiny",
    base=apply_overrides(finished_sweep(("VI",), 1).base, F3),
    space=DEFAULT_SPACE,
    objective="best",
    rng_seed=0,
    data=Path("/nowhere"),
    weights_file=None,
    num_train_images=160,
    search_half=["a"],
    held_out_half=["b"],
)
KEY = DEFAULT_SPACE[0].key
"""A setting that it draws."""
CELL = "III[yes,yes]"
SWEEP = finished_sweep(("III",), 1)
"""That has it."""


def search_trial(number: int, status: Any, *objectives: float, **more: Any) -> SearchTrial:
    """Return a trial of a search with the objective of each of its epochs."""
    settings = more.pop("settings", {KEY: 0.3 * (number + 1)})
    trial = SearchTrial(number, cam_id(SEARCH.config(settings)), settings, status, **more)
    for epoch, objective in enumerate(objectives, 1):
        trial.add_epoch({"epoch": float(epoch), "objective": objective, "threshold": 0.3})
    return trial


def planned_headline(
    *sources: str, sweep: Sweep = SWEEP, cell: str = CELL, **more: Any
) -> Headline:
    """Return DeepLab on labels of these sources from the CAMs of a cell."""
    labels, splits = PseudoLabelConfig(), {"val": "0123"}
    chains = make_chains(sweep, cell, list(sources), labels, TINY_DEEPLAB, splits)
    return Headline(sweep, cell, chains, f"CAMs of {cell}, <as> asked", **more)
