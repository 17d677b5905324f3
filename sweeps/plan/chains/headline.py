"""The paper's headline: refined pseudo-labels, a segmentation network on each, Tables I and II."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.scale import Scale, scale_of
from sweeps.plan.sweep import Sweep
from sweeps.store.store import Store, read_description, write_json
from wsss.basics.printable import counted
from wsss.overrides import ConfigError
from wsss.presets import PAPER_DEEPLAB
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig

SUPERVISED = "masks"
SOURCES = ("none", "crf", "pamr", "random_walk", "random_walk_crf", SUPERVISED)


@dataclass(frozen=True)
class Headline:
    """Several chains from one CAM configuration, to be compared."""

    sweep: Sweep
    """Has the data, the weights and the CAM's base settings."""
    cell: str
    """The table cell with the CAM's configuration."""
    chains: tuple[ChainConfig, ...]
    choice: str
    """Why this cell was chosen, and what the choice saw."""
    chosen_by_masks: bool = False
    """Whether pixel masks of training images chose the cell."""
    export: str | None = None
    """The split that is exported for VOC's server."""

    @property
    def name(self) -> str:
        """Equal for equal settings and labels, so that the same command finds its report again."""
        cell = re.sub(r"[^A-Za-z0-9.]+", "-", self.cell).strip("-")
        ids = " ".join(chain.prediction_id for chain in self.chains)
        digest = hashlib.sha256(ids.encode()).hexdigest()[:6]
        return f"{cell}-{self.sweep.preset}-{self.sweep.base.data.name}-{digest}"

    def folder(self, store: Store) -> Path:
        """Return its folder in the store."""
        return store.root / "headline" / self.name

    def report_folder(self, store: Store) -> Path:
        """Return its report's folder."""
        return self.folder(store) / "report"

    def exported_by(self, chain: ChainConfig) -> str | None:
        """Return the split that a chain's network exports, if it does.

        The supervised bound does if there is no network from image labels.
        """
        is_bound = chain.labels is None
        return self.export if is_bound == all(c.labels is None for c in self.chains) else None


def save_headline(store: Store, headline: Headline) -> None:
    """Save a headline's description for `load_headline`."""
    saved = TypeAdapter(Headline).dump_python(headline, mode="json", by_alias=True)
    write_json(headline.folder(store) / "headline.json", saved)


def load_headline(store: Store, name: str) -> Headline:
    """Read a headline's description. Raises StoreError if it is not what this version writes."""
    path = store.root / "headline" / name / "headline.json"
    return read_description(path, "sweeps headline", TypeAdapter(Headline).validate_python)


def source_of(chain: ChainConfig) -> str:
    """Return the command line's word for a chain's labels."""
    return SUPERVISED if chain.labels is None else chain.labels.refinement


def check_sources(sources: list[str]) -> None:
    """Raise ConfigError for a source of labels that is unknown or named twice."""
    unknown = [name for name in sources if name not in SOURCES]
    if unknown or not sources:
        raise ConfigError(f"no labels {', '.join(unknown)}; there are: {', '.join(SOURCES)}")
    if len(set(sources)) < len(sources):
        twice = next(name for name in sources if sources.count(name) > 1)
        raise ConfigError(f"labels {twice} are named twice; name them once")


def make_chains(
    sweep: Sweep,
    cell: str,
    sources: list[str],
    labels: PseudoLabelConfig,
    segmentation: DeepLabConfig,
    splits: Mapping[str, str],
) -> tuple[ChainConfig, ...]:
    """Plan a chain per source of labels: a refinement, or `masks` for the supervised bound.

    splits: the ones to predict, each with a digest of its content; the first one is scored.
    Raises ConfigError for a cell that is not in the sweep's tables.
    """
    trials = sweep.plan.cell_trials.get(cell)
    if not trials:
        raise ConfigError(f"no cell {cell}; there are: {', '.join(sweep.plan.cell_trials)}")
    return tuple(
        ChainConfig(
            run=trials[0].config,
            labels=None if name == SUPERVISED else labels.model_copy(update={"refinement": name}),
            segmentation=segmentation,
            eval_split=next(iter(splits)),
            fingerprints=tuple(splits.items()),
        )
        for name in sources
    )


def chain_metrics(store: Store, chain: ChainConfig) -> dict[str, Any] | None:
    """Return the figures of a finished chain, or None."""
    return store.folder(f"predictions/{chain.prediction_id}").result()


def describe(headline: Headline) -> str:
    """Return the lines above every number."""
    return f"{headline.sweep.describe()}\n{describe_segmentation(headline)}"


def describe_segmentation(headline: Headline) -> str:
    """Return how the segmentation networks were trained."""
    segmentation = headline.chains[0].segmentation
    crf = ", dense CRF at test" if segmentation.test_crf else ""
    return (
        f"CAMs of {headline.cell} | segmentation: DeepLabv2 on "
        f"{segmentation.backbone}, output stride {segmentation.output_stride}, "
        f"{segmentation.iterations} iterations, batch {segmentation.batch_size}, crop "
        f"{segmentation.crop_size}, seed {segmentation.rng_seed}{crf}"
    )


def headline_scale(headline: Headline, classes: Sequence[str]) -> Scale:
    """Return how the numbers differ from the paper's setting. classes: the data's."""
    ours, paper = headline.chains[0].segmentation, PAPER_DEEPLAB
    scale = scale_of(headline.sweep, classes)
    marks = list(scale.marks)
    if ours.backbone != paper.backbone:
        marks.append(f"DeepLab on {ours.backbone} instead of {paper.backbone}")
    if ours.iterations < paper.iterations:
        marks.append(f"{counted(ours.iterations, 'iteration')} instead of {paper.iterations:,}")
    if ours.crop_size != paper.crop_size:
        marks.append(f"DeepLab crop {ours.crop_size} instead of {paper.crop_size}")
    return replace(scale, marks=tuple(marks))
