"""The paper's headline: refined pseudo-labels, a segmentation network on each, Tables I and II."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from sweeps.chain import ChainConfig, ChainFolders
from sweeps.published import OURS, TABLE_I, TABLE_II, TABLE_II_CLASSES
from sweeps.report.scale import scale_marks
from sweeps.store import Store, StoreError, read_json
from sweeps.sweep import Sweep
from wsss.overrides import ConfigError
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig

REFINEMENTS = ("none", "crf", "pamr", "random_walk", "random_walk_crf")
SUPERVISED = "masks"


@dataclass(frozen=True)
class Headline:
    """Several chains from one CAM configuration, side by side."""

    sweep: Sweep
    """Says data, weights and the CAM's base settings."""
    cell: str
    """The table cell whose configuration the CAMs come from."""
    chains: tuple[ChainConfig, ...]


def make_headline(
    sweep: Sweep,
    cell: str,
    sources: list[str],
    labels: PseudoLabelConfig,
    segmentation: DeepLabConfig,
    eval_split: str,
) -> Headline:
    """Plan a chain per source of labels: a refinement, or `masks` for the supervised bound.

    Raises ConfigError for a cell that is not in the sweep's tables, or an unknown source.
    """
    trials = sweep.plan.cell_trials.get(cell)
    if not trials:
        raise ConfigError(f"no cell {cell}; there are: {', '.join(sweep.plan.cell_trials)}")
    unknown = [name for name in sources if name not in (*REFINEMENTS, SUPERVISED)]
    if unknown or not sources:
        raise ConfigError(
            f"no labels {', '.join(unknown)}; there are: {', '.join((*REFINEMENTS, SUPERVISED))}"
        )
    chains = tuple(
        ChainConfig(
            run=trials[0].config,
            labels=None if name == SUPERVISED else labels.model_copy(update={"refinement": name}),
            segmentation=segmentation,
            eval_split=eval_split,
        )
        for name in sources
    )
    return Headline(sweep, cell, chains)


@contextmanager
def one_at_a_time(store: Store) -> Iterator[None]:
    """Hold the store's chains. Raises StoreError if another process works on them."""
    store.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store.root / "chains.lock").acquire(timeout=0):
            yield
    except Timeout:
        raise StoreError(
            f"{store.root}: another `sweeps headline` works here; wait for it or end it"
        ) from None


def chain_metrics(store: Store, chain: ChainConfig) -> dict[str, Any] | None:
    """Return the figures of a finished chain, or None."""
    found: dict[str, Any] | None = read_json(
        ChainFolders(store.root, chain).predictions / "metrics.json"
    )
    return found


def describe(headline: Headline) -> str:
    """Return the line under which every number stands."""
    segmentation = headline.chains[0].segmentation
    return (
        f"{headline.sweep.describe()}\nCAMs of {headline.cell} | segmentation: DeepLabv2 on "
        f"{segmentation.backbone}, output stride {segmentation.output_stride}, "
        f"{segmentation.iterations} iterations, batch {segmentation.batch_size}, crop "
        f"{segmentation.crop_size}, seed {segmentation.rng_seed}"
    )


def print_headline(console: Console, headline: Headline, store: Store) -> None:
    """Print what came out beside the paper's rows of Tables I and II."""
    console.print(Text(describe(headline)))
    if marks := scale_marks(headline.sweep):
        console.print(
            Text(
                f"SMALL SCALE: {'; '.join(marks)}. These numbers neither confirm nor refute the "
                "paper's.",
                style="bold yellow",
            )
        )
    console.print(_table_i(headline, store))
    console.print(_table_ii(headline, store))
    console.print(
        Text(
            "Paper rows: as printed by Qin et al., TCSVT 2024, on VOC 2012 val and test. Measured "
            "rows: one training each; label scores and val mIoU saw pixel masks for scoring only, "
            "except the supervised bound, which was trained on them."
        )
    )


def _table_i(headline: Headline, store: Store) -> RichTable:
    grid = RichTable(title="Table I. Segmentation mIoU (%)")
    for name in ("labels", "label mIoU (train)", "val", "test"):
        grid.add_column(name, justify="left" if name == "labels" else "right")
    for row in TABLE_I:
        if row.method == OURS:
            grid.add_row("paper, ours (printed)", "–", f"{row.val:.1f}", f"{row.test:.1f}")
    for chain in headline.chains:
        metrics = chain_metrics(store, chain)
        if metrics is None:
            grid.add_row(chain.name, "missing", "missing", "–")
            continue
        labels = metrics["labels_score"]
        label_miou = f"{labels['miou']:.2f}" if labels else "–"
        grid.add_row(chain.name, label_miou, f"{metrics['miou']:.2f}", "server only")
    return grid


def _table_ii(headline: Headline, store: Store) -> RichTable:
    grid = RichTable(title="Table II. IoU per class (%), val")
    grid.add_column("class")
    printed = next(row for row in TABLE_II if row.method == OURS)
    grid.add_column("paper", justify="right")
    done = [(c, m) for c in headline.chains if (m := chain_metrics(store, c))]
    for chain, _ in done:
        grid.add_column(chain.name, justify="right")
    names = list(done[0][1]["iou"]) if done else list(TABLE_II_CLASSES)
    same = len(names) == len(TABLE_II_CLASSES)
    for index, name in enumerate(names):
        paper = f"{printed.ious[index]:.1f}" if same else "–"
        ious = [metrics["iou"][name] for _, metrics in done]
        grid.add_row(name, paper, *("–" if iou is None else f"{iou:.1f}" for iou in ious))
    return grid
