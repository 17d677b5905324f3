"""A search and a headline on a data set that does not exist, of which nothing is done."""

from pathlib import Path

from finished import finished_sweep

from sweeps.plan.chains.headline import Headline, make_chains
from sweeps.plan.search import DEFAULT_SPACE, Search
from sweeps.tables.studies import F3
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


def planned_headline(*sources: str) -> Headline:
    """Return DeepLab on labels of these sources from the CAMs of CELL."""
    sweep, labels = finished_sweep(("III",), 1), PseudoLabelConfig()
    chains = make_chains(sweep, CELL, list(sources), labels, TINY_DEEPLAB, {"val": "0123"})
    return Headline(sweep, CELL, chains, "asked for")
