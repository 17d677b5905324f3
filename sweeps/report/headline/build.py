"""The results of a headline's chains, read from the store. All mIoU in percent."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

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
from sweeps.report.document import Picture
from sweeps.report.words import about
from sweeps.stages.export import Archive, read_export
from sweeps.store.store import Store
from wsss.data.pictures.image import as_array, read_image
from wsss.data.pictures.mask import read_mask
from wsss.data.voc import VocDataset
from wsss.evaluation.figures import GalleryRow, draw_segmentation_gallery
from wsss.identity import cam_id, run_id

PLAIN = "none"
NUM_IMAGES = 6
"""Rows of the gallery."""
DOTS_PER_INCH = 110
MOST_SEEDS = 20
"""The store is searched for the seeds 0, 1, ... of a network, up to this many."""


@dataclass(frozen=True)
class NetworkRow:
    """One segmentation network, trained on one kind of labels."""

    chain: ChainConfig
    saw: str
    """What pixel masks were used for, from the CAMs to this figure."""
    miou: float | None
    """On the evaluation split; None for a chain that is not finished."""
    by_seed: dict[int, float]
    """Seed -> mIoU, of this network and of those in the store that differ only in their seed."""
    ious: dict[str, float | None]
    """By label, background first; None for a label that does not occur."""
    num_images: int
    """Scored images."""
    archive: Archive | None
    """The exported split."""

    @property
    def source(self) -> str:
        """As on the command line, e.g. "random_walk"."""
        return source_of(self.chain)

    @property
    def name(self) -> str:
        """In words, e.g. "CAM + random walk"."""
        return self.chain.name

    @property
    def finds_background_alone(self) -> bool:
        """Whether a finished network has no right pixel of any class except the background."""
        return not any(self.ious[name] for name in list(self.ious)[1:])


@dataclass(frozen=True)
class LabelRow:
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
class HeadlineReport:
    """Everything that `sweeps headline` writes."""

    headline: Headline
    scale: Scale
    command: str
    """Resumes the headline; if all networks are finished, trains them with another seed."""
    findings: tuple[str, ...]
    """The results in sentences."""
    networks: tuple[NetworkRow, ...]
    labels: tuple[LabelRow, ...]
    class_names: tuple[str, ...]
    """Background first."""
    gallery: Picture | None
    about: tuple[tuple[str, str], ...]
    """The code, the device and the paper."""
    provenance: tuple[tuple[str, str], ...]

    @property
    def split(self) -> str:
        """The split that the networks are scored on."""
        return self.headline.chains[0].eval_split


def build_headline_report(headline: Headline, store: Store) -> HeadlineReport:
    """Read the chains' results. An unfinished chain is a row without numbers."""
    found = [chain_metrics(store, chain) or {} for chain in headline.chains]
    networks = tuple(map(partial(_network, headline, store), headline.chains, found))
    labels = _label_rows(headline, store)
    class_names = ("background", *VocDataset(headline.sweep.data).classes)
    next_seed = None
    if all(found):
        known = set.intersection(*(set(row.by_seed) for row in networks))
        next_seed = next(seed for seed in count() if seed not in known)
    return HeadlineReport(
        headline=headline,
        scale=headline_scale(headline, class_names[1:]),
        command=headline_command(headline, store, next_seed),
        findings=_findings(networks, labels, headline.chains[0].eval_split),
        networks=networks,
        labels=labels,
        class_names=class_names,
        gallery=_gallery(headline, store),
        about=about(metrics["environment"] for metrics in found if metrics),
        provenance=_provenance(headline, store, networks, found),
    )


def _network(
    headline: Headline, store: Store, chain: ChainConfig, metrics: dict[str, Any]
) -> NetworkRow:
    saw = "scoring only"
    if chain.labels is None:
        saw = "training and scoring"
    elif headline.chosen_by_masks:
        saw = "scoring, and the choice of the CAM configuration on training images"
    archive = None
    if headline.export and chain in headline.exported:
        archive = read_export(store, chain, headline.export)
    return NetworkRow(
        chain=chain,
        saw=saw,
        miou=metrics.get("miou"),
        by_seed=_by_seed(store, chain),
        ious=metrics.get("iou", {}),
        num_images=metrics.get("eval_images", 0),
        archive=archive,
    )


def _by_seed(store: Store, chain: ChainConfig) -> dict[int, float]:
    found = dict[int, float]()
    for seed in {*range(MOST_SEEDS), chain.segmentation.rng_seed}:
        network = chain.segmentation.model_copy(update={"rng_seed": seed})
        metrics = chain_metrics(store, chain.model_copy(update={"segmentation": network}))
        if metrics:
            found[seed] = metrics["miou"]
    return found


def chain_ids(chain: ChainConfig) -> tuple[tuple[str, str], ...]:
    """Return (stage, id) of a chain's stages, from the CAMs to the predictions."""
    ids = []
    if chain.labels is not None:
        ids = [("cam", cam_id(chain.run)), ("run", run_id(chain.run)), ("maps", chain.maps_id)]
        if chain.walks:
            ids.append(("walk", chain.walk_id))
    return (
        *ids,
        ("labels", chain.labels_id),
        ("segmentation", chain.segmentation_id),
        ("prediction", chain.prediction_id),
    )


def _label_rows(headline: Headline, store: Store) -> tuple[LabelRow, ...]:
    """Return the labels before and after each refinement, the unrefined CAMs first.

    Without a chain on plain CAMs, their mIoU is that of the CAM's own run at the same background
    score. Empty if there is only the supervised bound.
    """
    chains = [chain for chain in headline.chains if chain.labels is not None]
    if not chains:
        return ()
    chains.sort(key=lambda chain: source_of(chain) != PLAIN)  # stable
    saw = "scoring only"
    if headline.chosen_by_masks:
        saw = "scoring, and the choice of the CAM configuration by these images"
    rows = [] if source_of(chains[0]) == PLAIN else _plain(store, chains[0], saw)
    for chain in chains:
        scores = (chain_metrics(store, chain) or {}).get("labels_score")
        if not scores:
            rows.append(LabelRow(chain.name, "not scored"))
            continue
        before = rows[0].miou if rows else None
        gain = None if before is None else scores["miou"] - before
        accuracy, images = scores["pixel_accuracy"], scores["num_images"]
        rows.append(LabelRow(chain.name, saw, scores["miou"], accuracy, images, gain))
    return tuple(rows)


def _plain(store: Store, chain: ChainConfig, saw: str) -> list[LabelRow]:
    """Return the row of the CAM's own run, if it is scored at the labels' background score."""
    metrics = store.run(run_id(chain.run)).metrics()
    if metrics is None or chain.labels is None or chain.labels.background != "fixed":
        return []
    score, images = chain.labels.background_score, metrics["data"]["eval_images"]
    return [
        LabelRow("CAM", saw, miou, num_images=images)
        for threshold, miou in metrics["curve"]
        if abs(threshold - score) < 1e-6
    ]


def _provenance(
    headline: Headline,
    store: Store,
    networks: Sequence[NetworkRow],
    metrics: Sequence[dict[str, Any]],
) -> tuple[tuple[str, str], ...]:
    base = headline.sweep.base
    found = [
        ("data", f"{base.data.name}, {base.data.fingerprint}"),
        ("CAM weights", base.network.weights),
        ("DeepLab weights", headline.chains[0].segmentation.weights),
        ("store", store.root.name),
    ]
    for row in networks:
        ids = ", ".join(f"{stage} {value}" for stage, value in chain_ids(row.chain))
        found.append((f"ids of {row.name}", ids))
    for row, seen in zip(networks, metrics, strict=True):
        if seen:
            versions = ", ".join(f"{k} {v}" for k, v in seen["environment"].items())
            seconds = f"DeepLab trained {seen['train_seconds']:.0f} s"
            found.append((f"run of {row.name}", f"{seconds}; {versions}"))
    for row in networks:
        if row.archive:
            tar = row.archive.tar.relative_to(store.root)
            found.append((f"archive of {row.name}", f"{row.archive.split}: {tar}"))
    return (*found, ("report written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")))


# Findings


def _findings(
    networks: Sequence[NetworkRow], labels: Sequence[LabelRow], split: str
) -> tuple[str, ...]:
    """Say which network from image labels is best, what refinement gains, and the bound.

    mIoU in percent, differences in percentage points. Networks that learnt nothing are named and
    not compared. Empty if no network is finished.
    """
    finished = [(row, row.miou) for row in networks if row.miou is not None]
    done = [(row, miou) for row, miou in finished if not row.finds_background_alone]
    weak = [(row, miou) for row, miou in done if row.source != SUPERVISED]
    bounds = [miou for row, miou in done if row.source == SUPERVISED]
    gains = {
        row.name: f", {row.gain:+.2f} for its labels on the training images"
        for row in labels
        if row.gain is not None
    }
    sentences = [
        f"The network on {row.name} finds only the background ({miou:.2f} mIoU), so it is not "
        "compared."
        for row, miou in finished
        if row.finds_background_alone
    ]
    if weak:
        best, highest = max(weak, key=lambda pair: pair[1])
        sentences.append(
            f"From image labels, the network on {best.name} reaches {highest:.2f} mIoU on "
            f"{best.num_images} images ({split})."
        )
    for plain in [miou for row, miou in weak if row.source == PLAIN]:
        for row, miou in weak:
            if row.source != PLAIN:
                sentences.append(
                    f"{row.name} against plain CAM: {miou - plain:+.2f} points on {split}"
                    f"{gains.get(row.name, '')}."
                )
    for bound in bounds:
        share = 100 * highest / bound if weak and bound else 0
        sentences.append(
            f"The supervised bound reaches {bound:.2f}: image labels reach {share:.0f} % of it."
            if weak
            else f"The supervised bound reaches {bound:.2f} mIoU ({split})."
        )
    if len(done) > 1:
        sentences.append(
            "Each network is one training: differences of a point or two may be seed noise."
        )
    return tuple(sentences)


# Gallery


def _gallery(headline: Headline, store: Store) -> Picture | None:
    """Draw every network's predictions of the same images; None if no predictions are here.

    The images are evenly spaced over the split, not hand-picked. The picture is also written
    beside the report, as gallery.png.
    """
    dataset, split = VocDataset(headline.sweep.data), headline.chains[0].eval_split
    ids = dataset.image_ids(split)
    shown = ids[:: max(1, len(ids) // NUM_IMAGES)][:NUM_IMAGES]
    finished = [
        chain
        for chain in sorted(headline.chains, key=lambda c: c.labels is None)  # the bound last
        if chain_metrics(store, chain)
        and all(_prediction(store, chain, name).exists() for name in shown)
    ]
    if not finished:
        return None
    path = headline.report_folder(store) / "gallery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["true masks" if chain.labels is None else chain.name for chain in finished]
    rows = [
        GalleryRow(
            name,
            as_array(read_image(dataset.image_path(name))),
            (
                dataset.mask(name),
                *(
                    read_mask(_prediction(store, chain, name), len(dataset.classes))
                    for chain in finished
                ),
            ),
        )
        for name in shown
    ]
    draw_segmentation_gallery(
        path,
        rows,
        ("ground truth", *names),
        class_names=dataset.classes,
        dots_per_inch=DOTS_PER_INCH,
    )
    caption = (
        f"Image, ground truth, and the prediction of the network trained on: {'; '.join(names)}. "
        f"{len(shown)} images evenly spaced over {split}, as the paper's Figure 5."
    )
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return Picture(f"Segmentations of {split}", caption, image=uri, file=path.name, wide=True)


def _prediction(store: Store, chain: ChainConfig, image_id: str) -> Path:
    return store.folder(f"predictions/{chain.prediction_id}/png").path / f"{image_id}.png"
