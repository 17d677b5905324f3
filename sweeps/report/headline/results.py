"""The results of a headline's chains, read from the store, and what they say.

All mIoU in percent.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from statistics import fmean
from typing import Any, NamedTuple

from sweeps.evidence.image_counts import FILE_NAME, PREDICTED, load_image_counts
from sweeps.evidence.images import ImageCounts, percentiles, resample_counts, resampled_mious
from sweeps.evidence.seeds import FloatArray, Interval
from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.chains.headline import (
    SUPERVISED,
    Headline,
    chain_metrics,
    headline_scale,
    source_of,
)
from sweeps.plan.run_command import headline_command
from sweeps.plan.scale import Scale
from sweeps.report.document import Strip
from sweeps.report.words import interval, mean_and_sd
from sweeps.stages.export import Archive, read_export
from sweeps.store.store import Store
from sweeps.tables.segmentation import OURS, TABLE_I
from wsss.basics.printable import counted
from wsss.data.voc import VocDataset
from wsss.identity import run_id

PLAIN = "none"
IMAGE_LABELS = "image labels"
MOST_SEEDS = 20
"""The store is searched for the seeds 0, 1, ... of a network, up to this many."""


@dataclass(frozen=True)
class Network:
    """One segmentation network, trained on one kind of labels."""

    chain: ChainConfig
    saw: str
    """What pixel masks were used for, from the CAMs to this figure."""
    figures: dict[str, Any]
    """Its chain's result; {} if the chain is not finished."""
    by_seed: dict[int, float]
    """Seed -> mIoU, of this network and of those in the store that differ only in their seed."""
    archive: Archive | None
    """The exported split."""
    counts: ImageCounts | None
    """Of its predictions; None if an earlier version scored them, or none are here."""

    @property
    def source(self) -> str:
        """As on the command line, e.g. "random_walk"."""
        return source_of(self.chain)

    @property
    def name(self) -> str:
        """In words, e.g. "CAM + random walk"."""
        return self.chain.name

    @property
    def supervision(self) -> str:
        """What it was trained from, as in Table I."""
        return "pixel masks" if self.source == SUPERVISED else IMAGE_LABELS

    @property
    def miou(self) -> float | None:
        """On the evaluation split; None for a chain that is not finished."""
        return self.figures.get("miou")

    @property
    def ious(self) -> dict[str, float | None]:
        """By label, background first; None for a label that does not occur."""
        return self.figures.get("iou", {})

    @property
    def finds_background_alone(self) -> bool:
        """Whether a finished network has no right pixel of any class except the background."""
        return not any([*self.ious.values()][1:])


class Labels(NamedTuple):
    """The labels of the training images, with one kind of refinement."""

    name: str
    saw: str
    miou: float | None = None
    """None for labels that are not scored, e.g. because they leave pixels out."""
    pixel_accuracy: float | None = None
    num_images: int = 0
    gain: float | None = None
    """mIoU minus that of the unrefined CAMs, in percentage points."""


@dataclass(frozen=True)
class Results:
    """What a headline has come to."""

    headline: Headline
    scale: Scale
    class_names: tuple[str, ...]
    """Background first."""
    networks: tuple[Network, ...]
    labels: tuple[Labels, ...]

    @property
    def split(self) -> str:
        """The split that the networks are scored on."""
        return self.headline.chains[0].eval_split

    @cached_property
    def resampled(self) -> dict[str, FloatArray]:
        """Source of labels -> mIoU in each resample of the split's images, the same for all: [R].

        Without networks whose images are not counted; empty for a single image.
        """
        counts = {n.source: n.counts for n in self.networks if n.counts and n.counts.num_images > 1}
        if not counts:
            return {}
        drawn = resample_counts(next(iter(counts.values())).num_images)
        return dict(zip(counts, resampled_mious([*counts.values()], drawn), strict=True))

    def image_interval(self, source: str, other: str | None = None) -> Interval | None:
        """Return the 95 % bootstrap interval over images of a mIoU, or of its lead over another's.

        None if the images of one are not counted.
        """
        found = [self.resampled.get(name) for name in (source, other) if name]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        return percentiles(known[0] - known[1] if other else known[0])


def read_results(headline: Headline, store: Store) -> Results:
    """Read the chains' results."""
    class_names = ("background", *VocDataset(headline.sweep.data).classes)
    return Results(
        headline,
        headline_scale(headline, class_names[1:]),
        class_names,
        networks=tuple(_network(headline, store, chain) for chain in headline.chains),
        labels=tuple(_labels(headline, store)),
    )


def _network(headline: Headline, store: Store, chain: ChainConfig) -> Network:
    saw = "scoring only"
    if chain.labels is None:
        saw = "training and scoring"
    elif headline.chosen_by_masks:
        saw = "scoring, and the choice of the CAM configuration on training images"
    by_seed = dict[int, float]()
    for seed in {*range(MOST_SEEDS), chain.segmentation.rng_seed}:
        network = chain.segmentation.model_copy(update={"rng_seed": seed})
        found = chain_metrics(store, chain.model_copy(update={"segmentation": network}))
        if found:
            by_seed[seed] = found["miou"]
    split = headline.exported_by(chain)
    archive = read_export(store, chain, split) if split else None
    folder, counts = store.folder(f"predictions/{chain.prediction_id}"), None
    if (folder.path / FILE_NAME).exists():
        counts = load_image_counts(folder, PREDICTED)[1]
    return Network(chain, saw, chain_metrics(store, chain) or {}, by_seed, archive, counts)


def _labels(headline: Headline, store: Store) -> Iterator[Labels]:
    """Yield the labels before and after each refinement, the unrefined CAMs first.

    Without a chain on plain CAMs, their mIoU is that of the CAM's own run at the same background
    score. Nothing if there is only the supervised bound.
    """
    chains = [chain for chain in headline.chains if chain.labels is not None]
    chains.sort(key=lambda chain: source_of(chain) != PLAIN)  # stable
    saw = "scoring only"
    if headline.chosen_by_masks:
        saw = "scoring, and the choice of the CAM configuration by these images"
    before = None
    if chains and source_of(chains[0]) != PLAIN and (plain := _plain(store, chains[0])):
        before, num_images = plain
        yield Labels("CAM", saw, before, num_images=num_images)
    for chain in chains:
        scores = (chain_metrics(store, chain) or {}).get("labels_score")
        if not scores:
            yield Labels(chain.name, "not scored")
            continue
        miou, accuracy, images = (scores[k] for k in ("miou", "pixel_accuracy", "num_images"))
        gain = None if before is None else miou - before
        yield Labels(chain.name, saw, miou, accuracy, images, gain)
        if source_of(chain) == PLAIN:
            before = miou


def _plain(store: Store, chain: ChainConfig) -> tuple[float, int] | None:
    """Return mIoU and number of images of the CAM's own run, at the labels' background score."""
    metrics = store.run(run_id(chain.run)).result()
    if metrics is None or chain.labels is None or chain.labels.background != "fixed":
        return None
    for threshold, miou in metrics["curve"]:
        if abs(threshold - chain.labels.background_score) < 1e-6:
            return miou, metrics["data"]["eval_images"]
    return None


# What they say


def findings(results: Results) -> tuple[str, ...]:
    """Say which network from image labels is best, what refinement gains, and the bound.

    Differences are in percentage points. Networks that learnt nothing are named and not compared.
    Empty if no network is finished.
    """
    split, finished = results.split, [n for n in results.networks if n.miou is not None]
    sentences = [
        f"The network on {network.name} finds only the background ({network.miou:.2f} mIoU), so it "
        "is not compared."
        for network in finished
        if network.finds_background_alone
    ]
    found = {n.source: (n.name, n.miou or 0.0) for n in finished if not n.finds_background_alone}
    weak = {source: each for source, each in found.items() if source != SUPERVISED}
    best, reached = max(weak.values(), key=lambda each: each[1], default=("", 0.0))
    if best:
        sentences.append(
            f"From image labels, the network on {best} reaches {reached:.2f} mIoU on "
            f"{counted(finished[0].figures['eval_images'], 'image')} ({split})."
        )
    gains = {labels.name: labels.gain for labels in results.labels}
    for source, (name, miou) in weak.items():
        if PLAIN not in weak or source == PLAIN:
            continue
        sentence = f"{name} against plain CAM: {miou - weak[PLAIN][1]:+z.2f} points on {split}"
        if ends := results.image_interval(source, PLAIN):
            sentence += f" (95 % over images {interval(ends, sign=True)})"
        if (gain := gains.get(name)) is not None:
            sentence += f", {gain:+z.2f} for its labels on the training images"
        sentences.append(f"{sentence}.")
    if SUPERVISED in found:
        _, bound = found[SUPERVISED]
        sentences.append(
            f"The supervised bound reaches {bound:.2f}: image labels reach "
            f"{100 * reached / bound if bound else 0:.0f} % of it."
            if best
            else f"The supervised bound reaches {bound:.2f} mIoU ({split})."
        )
    if len(found) > 1:
        sentences.append(
            "Each network is one training: differences of a point or two may be seed noise, which "
            "intervals over images do not cover."
        )
    return tuple(sentences)


def answer(results: Results, store: Store) -> Strip:
    """Return how far the best network from image labels is from the paper's, and the next step.

    The paper gives no spread, so the answer is always "cannot tell"; with other classes than VOC's
    it is the network's mIoU alone. It gives the measured spread if the store has several seeds. The
    next step is to resume, or to train another seed.
    """
    place = " on this data and at this scale" if results.scale.word else ""
    missing = sum(network.miou is None for network in results.networks)
    lacking = f" {counted(missing, 'network')} missing." if missing else ""
    seed = None
    if not missing:
        known = set.intersection(*(set(network.by_seed) for network in results.networks))
        seed = next(seed for seed in count() if seed not in known)
    question, why = f"Does the paper's headline hold{place}?", f"Cannot tell: {_why(results)}"
    if results.scale.other_classes:
        question, why = "How good is a segmentation from image labels here?", _why(results)
    command = headline_command(results.headline, store, seed)
    return Strip(question, f"{why[0].upper()}{why[1:]}.{lacking}", "open", command)


def _why(results: Results) -> str:
    """Return the result, and why it cannot be decided."""
    weak = [n for n in results.networks if n.source != SUPERVISED and n.miou is not None]
    if not weak:
        return "no network from image labels is finished"
    found = [network for network in weak if not network.finds_background_alone]
    if not found:
        return "no network from image labels finds more than the background"
    best = max(found, key=lambda network: network.miou or 0)
    paper = next(row.val for row in TABLE_I if row.method == OURS)
    values = list(best.by_seed.values())
    seeds = "with one seed" if len(values) == 1 else f"over {len(values)} seeds"
    reaches = f"reaches {mean_and_sd(values)} mIoU on {results.split} {seeds}"
    chosen = f", the best of {len(found)} networks there" if len(found) > 1 else ""
    measured = f"the network on {best.name} {reaches}{chosen}"
    if results.scale.other_classes:
        return measured
    if results.scale.word:
        return f"{measured}; the paper's {paper:.1f} is on other data or at another scale"
    if results.split != "val":
        return f"{measured}; the paper prints {paper:.1f} for val"
    apart = f"{fmean(values) - paper:+z.2f} from the paper's {paper:.1f}"
    return f"{measured}, {apart}, which has no spread"
