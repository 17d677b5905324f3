"""The results of a headline's chains, read from the store. All mIoU in percent."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from sweeps.plan.chains.chain import ChainConfig, ChainFolders
from sweeps.plan.chains.headline import (
    SUPERVISED,
    Headline,
    chain_metrics,
    describe_segmentation,
    headline_scale,
    source_of,
)
from sweeps.plan.run_command import headline_command
from sweeps.plan.scale import Scale
from sweeps.report.document import Picture
from sweeps.report.words import about
from sweeps.stages.export import read_export
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

    source: str
    """As on the command line, e.g. "random_walk"."""
    name: str
    """In words, e.g. "CAM + random walk"."""
    supervision: str
    backbone: str
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
    ids: tuple[tuple[str, str], ...]
    """(stage, id) from the CAMs to the predictions."""
    tar: str | None
    """The exported archive, relative to the store."""
    tar_split: str | None
    tar_miou: float | None
    """mIoU of the exported split, where it has masks."""

    @property
    def finds_background_alone(self) -> bool:
        """Whether a finished network has no right pixel of any class except the background."""
        return not any(self.ious[name] for name in list(self.ious)[1:])


@dataclass(frozen=True)
class LabelRow:
    """The labels of the training images, with one kind of refinement."""

    name: str
    miou: float | None
    """None for labels that are not scored, e.g. because they leave pixels out."""
    pixel_accuracy: float | None
    num_images: int
    gain: float | None
    """mIoU minus that of the unrefined CAMs, in percentage points."""
    saw: str


@dataclass(frozen=True)
class HeadlineReport:
    """Everything that `sweeps headline` writes."""

    headline: Headline
    created: str
    scale: Scale
    command: str
    """Resumes the headline; if all networks are finished, trains them with another seed."""
    findings: tuple[str, ...]
    """The results in sentences."""
    networks: tuple[NetworkRow, ...]
    labels: tuple[LabelRow, ...]
    labels_paper: float | None
    """The paper's pseudo-label mIoU for the cell."""
    network_scale: str
    """Data, images and network of Tables I and II."""
    class_names: tuple[str, ...]
    """Background first."""
    gallery: Picture | None
    about: tuple[tuple[str, str], ...]
    """The code, the device and the paper."""
    provenance: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """The report's title."""
        return f"Tables I and II: from {self.headline.cell} to segmentation"

    @property
    def split(self) -> str:
        """The split that the networks are scored on."""
        return self.headline.chains[0].eval_split


def build_headline_report(headline: Headline, store: Store) -> HeadlineReport:
    """Read the chains' results. An unfinished chain is a row without numbers."""
    found = [chain_metrics(store, chain) for chain in headline.chains]
    networks = tuple(_network(headline, store, chain) for chain in headline.chains)
    labels = _label_rows(headline, store)
    class_names = ("background", *VocDataset(headline.sweep.data).classes)
    cells = dict(cell for table in headline.sweep.plan.tables for cell in table.cells())
    is_finished = all(row.miou is not None for row in networks)
    known = set.intersection(*(set(row.by_seed) for row in networks))
    next_seed = next(seed for seed in count() if seed not in known) if is_finished else None
    return HeadlineReport(
        headline=headline,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        scale=headline_scale(headline, class_names[1:]),
        command=headline_command(headline, store, next_seed),
        findings=_findings(networks, labels, headline.chains[0].eval_split),
        networks=networks,
        labels=labels,
        labels_paper=cells[headline.cell].paper,
        network_scale=_network_scale(headline, networks),
        class_names=class_names,
        gallery=_gallery(headline, store),
        about=about(metrics["environment"] for metrics in found if metrics),
        provenance=_provenance(headline, store, networks),
    )


def _network(headline: Headline, store: Store, chain: ChainConfig) -> NetworkRow:
    metrics = chain_metrics(store, chain) or {}
    source = source_of(chain)
    export = None
    if headline.export and chain in headline.exported:
        export = read_export(store, chain, headline.export)
    return NetworkRow(
        source=source,
        name=chain.name,
        supervision="pixel masks" if source == SUPERVISED else "image labels",
        backbone=chain.segmentation.backbone,
        saw=_saw_masks(source, headline),
        miou=metrics.get("miou"),
        by_seed=_by_seed(store, chain),
        ious=metrics.get("iou", {}),
        num_images=metrics.get("eval_images", 0),
        ids=chain_ids(chain),
        tar=str(export.tar.relative_to(store.root)) if export else None,
        tar_split=export.split if export else None,
        tar_miou=export.miou if export else None,
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
    rows: list[LabelRow] = []
    if source_of(chains[0]) != PLAIN and (plain := _plain(store, chains[0], saw)):
        rows.append(plain)
    for chain in chains:
        found = (chain_metrics(store, chain) or {}).get("labels_score") or {}
        miou = found.get("miou")
        before = rows[0].miou if rows else None
        rows.append(
            LabelRow(
                name=chain.name,
                miou=miou,
                pixel_accuracy=found.get("pixel_accuracy"),
                num_images=found.get("num_images", 0),
                gain=None if before is None or miou is None else miou - before,
                saw=saw if found else "not scored",
            )
        )
    return tuple(rows)


def _plain(store: Store, chain: ChainConfig, saw: str) -> LabelRow | None:
    assert chain.labels is not None
    metrics = store.run(run_id(chain.run)).metrics()
    if metrics is None or chain.labels.background != "fixed":
        return None
    score = chain.labels.background_score
    miou = next((m for t, m in metrics["curve"] if abs(t - score) < 1e-6), None)
    images = metrics["data"]["eval_images"]
    return LabelRow("CAM", miou, None, images, None, saw) if miou is not None else None


def _network_scale(headline: Headline, networks: tuple[NetworkRow, ...]) -> str:
    data, sweep = headline.sweep.base.data, headline.sweep
    images = next((str(row.num_images) for row in networks if row.num_images), "no")
    return (
        f"data {data.name} [{data.fingerprint}]: {sweep.num_train_images} images trained "
        f"({data.train_split}), {images} scored ({headline.chains[0].eval_split}) | "
        f"{describe_segmentation(headline)} | one training per row"
    )


def _provenance(
    headline: Headline, store: Store, networks: tuple[NetworkRow, ...]
) -> tuple[tuple[str, str], ...]:
    found = [
        ("data", f"{headline.sweep.base.data.name}, {headline.sweep.base.data.fingerprint}"),
        ("CAM weights", headline.sweep.base.network.weights),
        ("DeepLab weights", headline.chains[0].segmentation.weights),
        ("store", store.root.name),
    ]
    found += [
        (f"ids of {row.name}", ", ".join(f"{stage} {value}" for stage, value in row.ids))
        for row in networks
    ]
    for chain in headline.chains:
        metrics = chain_metrics(store, chain)
        if metrics:
            versions = ", ".join(f"{k} {v}" for k, v in metrics["environment"].items())
            seconds = f"DeepLab trained {metrics['train_seconds']:.0f} s"
            found.append((f"run of {chain.name}", f"{seconds}; {versions}"))
    found += [
        (f"archive of {row.name}", f"{row.tar_split}: {row.tar}") for row in networks if row.tar
    ]
    return tuple(found)


def _saw_masks(source: str, headline: Headline) -> str:
    """Return what pixel masks were used for, from the CAMs to a network's score."""
    if source == SUPERVISED:
        return "training and scoring"
    if headline.chosen_by_masks:
        return "scoring, and the choice of the CAM configuration on training images"
    return "scoring only"


# Findings


def _findings(
    networks: Sequence[NetworkRow], labels: Sequence[LabelRow], split: str
) -> tuple[str, ...]:
    """Say which network from image labels is best, what refinement gains, and the bound.

    mIoU in percent, differences in percentage points. Networks that learnt nothing are named and
    not compared. Empty if no network is finished.
    """
    finished = [row for row in networks if row.miou is not None]
    done = [row for row in finished if not row.finds_background_alone]
    weak = [row for row in done if row.source != SUPERVISED]
    sentences = [
        f"The network on {row.name} finds only the background ({_miou(row):.2f} mIoU), so it is "
        "not compared."
        for row in finished
        if row.finds_background_alone
    ]
    if weak:
        best = max(weak, key=_miou)
        sentences.append(
            f"From image labels, the network on {best.name} reaches {_miou(best):.2f} mIoU on "
            f"{best.num_images} images ({split})."
        )
    plain = next((row for row in weak if row.source == PLAIN), None)
    for row in weak:
        if plain and row is not plain:
            sentences.append(
                f"{row.name} against plain CAM: {_miou(row) - _miou(plain):+.2f} points on {split}"
                f"{_label_gain(row.name, labels)}."
            )
    bound = next((row for row in done if row.source == SUPERVISED), None)
    if weak and bound:
        share = 100 * _miou(best) / _miou(bound) if _miou(bound) else 0
        sentences.append(
            f"The supervised bound reaches {_miou(bound):.2f}: image labels reach {share:.0f} % "
            "of it."
        )
    elif bound:
        sentences.append(f"The supervised bound reaches {_miou(bound):.2f} mIoU ({split}).")
    if len(done) > 1:
        sentences.append(
            "Each network is one training: differences of a point or two may be seed noise."
        )
    return tuple(sentences)


def _miou(row: NetworkRow) -> float:
    assert row.miou is not None
    return row.miou


def _label_gain(name: str, labels: Sequence[LabelRow]) -> str:
    gain = next((row.gain for row in labels if row.name == name and row.gain is not None), None)
    return "" if gain is None else f", {gain:+.2f} for its labels on the training images"


# Gallery


def _gallery(headline: Headline, store: Store) -> Picture | None:
    """Draw every network's predictions of the same images; None if no predictions are here.

    The images are evenly spaced over the split, not hand-picked. The picture is also written
    beside the report, as gallery.png.
    """
    finished = [chain for chain in headline.chains if chain_metrics(store, chain)]
    if not finished:
        return None
    finished.sort(key=lambda chain: chain.labels is None)  # the bound last
    dataset, split = VocDataset(headline.sweep.data), finished[0].eval_split
    ids = dataset.image_ids(split)
    shown = ids[:: max(1, len(ids) // NUM_IMAGES)][:NUM_IMAGES]
    finished = [c for c in finished if all(_prediction(store, c, name).exists() for name in shown)]
    if not finished:
        return None
    path = headline.report_folder(store) / "gallery.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["true masks" if chain.labels is None else chain.name for chain in finished]
    draw_segmentation_gallery(
        path,
        [_row(dataset, store, finished, image_id) for image_id in shown],
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


def _row(dataset: VocDataset, store: Store, chains: list[ChainConfig], image_id: str) -> GalleryRow:
    return GalleryRow(
        image_id,
        as_array(read_image(dataset.image_path(image_id))),
        (
            dataset.mask(image_id),
            *(read_mask(_prediction(store, c, image_id), len(dataset.classes)) for c in chains),
        ),
    )


def _prediction(store: Store, chain: ChainConfig, image_id: str) -> Path:
    return ChainFolders(store.root, chain).predictions / "png" / f"{image_id}.png"
