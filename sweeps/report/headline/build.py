"""From the store to the headline's report: every chain's figures, and what they rest on."""

from datetime import UTC, datetime

from sweeps.plan.chain import ChainConfig
from sweeps.plan.headline import (
    SUPERVISED,
    Headline,
    chain_metrics,
    describe_segmentation,
    scale_warning,
    source_of,
)
from sweeps.report.headline.findings import findings
from sweeps.report.headline.model import HeadlineReport, LabelRow, NetworkRow
from sweeps.report.headline.pictures import gallery
from sweeps.report.headline.words import saw_masks
from sweeps.stages.export import read_export
from sweeps.store.store import Store
from sweeps.tables.notes import notes_on
from wsss.data.classes import VOC_CLASSES
from wsss.data.voc import VocDataset
from wsss.identity import cam_id, run_id

PLAIN = "none"


def build_headline_report(headline: Headline, store: Store) -> HeadlineReport:
    """Read what the chains came to. A chain that is not finished is a row without figures."""
    networks = tuple(_network(headline, store, chain) for chain in headline.chains)
    labels = label_rows(headline, store)
    class_names = ("background", *VocDataset(headline.sweep.data).classes)
    cells = dict(cell for table in headline.sweep.plan.tables for cell in table.cells())
    return HeadlineReport(
        headline=headline,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        warning=scale_warning(headline),
        findings=findings(networks, labels, headline.chains[0].eval_split),
        networks=networks,
        labels=labels,
        labels_paper=cells[headline.cell].paper,
        label_scale=headline.sweep.describe(),
        network_scale=_network_scale(headline, networks),
        same_classes=class_names[1:] == VOC_CLASSES,
        class_names=class_names,
        paper_notes=notes_on(("I", "II")),
        gallery=gallery(headline, store),
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
        saw=saw_masks(source, headline),
        miou=metrics.get("miou"),
        ious=metrics.get("iou", {}),
        pixel_accuracy=metrics.get("pixel_accuracy"),
        num_images=metrics.get("eval_images", 0),
        ids=chain_ids(chain),
        tar=str(export.tar.relative_to(store.root)) if export else None,
        tar_split=export.split if export else None,
        tar_miou=export.miou if export else None,
    )


def chain_ids(chain: ChainConfig) -> tuple[tuple[str, str], ...]:
    """Return (stage, id) of the stages that a chain has, from the CAMs to the predictions."""
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


def label_rows(headline: Headline, store: Store) -> tuple[LabelRow, ...]:
    """Return the labels before and behind each refinement, the CAMs as they are first.

    Without a chain on plain CAMs, their figure is that of the CAM's own run at the same background
    score. Empty if the supervised bound is all there is.
    """
    chains = [chain for chain in headline.chains if chain.labels is not None]
    if not chains:
        return ()
    chains.sort(key=lambda chain: source_of(chain) != PLAIN)  # stable: the rest as it was
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
