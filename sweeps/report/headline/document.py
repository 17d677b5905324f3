"""A headline's report as a document: the paper's Tables I and II with our rows, and the labels."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sweeps.plan.chains.headline import SUPERVISED, Headline, describe, describe_segmentation
from sweeps.report.document import (
    ALL,
    DASH,
    HTML,
    ON_PAGES,
    TERMINAL,
    Block,
    Bullets,
    Column,
    Details,
    Document,
    Grid,
    Only,
    Picture,
    Records,
    Row,
    RowGroup,
    Section,
    Text,
    in_one_group,
)
from sweeps.report.headline.results import (
    IMAGE_LABELS,
    Network,
    Results,
    answer,
    findings,
    read_results,
)
from sweeps.report.words import (
    HOW_TO_READ,
    MISSING,
    about,
    interval,
    number,
    paper_section,
    signed,
    warning,
)
from sweeps.stages.score import evenly_spaced
from sweeps.stages.segmentation import Predict, draw_gallery
from sweeps.store.store import Store
from sweeps.tables.notes import notes_on
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II
from wsss.data.voc import VocDataset

PRINTED = "printed by the paper"
MEASURED = "measured here"
OURS_IN_FULL = "Ours (the paper)"
SALIENCY = f"{IMAGE_LABELS}, saliency"

DOTS_PER_INCH = 110
"""Of the gallery."""

_FILES = ALL - TERMINAL

_TABLE_I = (
    Column("val"),
    Column("95 % over images", formats=ON_PAGES),
    Column("test"),
    Column("backbone", align="left", formats=_FILES),
    Column("supervision", align="left", formats=_FILES),
    Column("publication", align="left", formats=_FILES),
    Column("pixel masks", align="left", wraps=True, formats=_FILES),
)
_LABELS = (
    Column("mIoU"),
    Column("gain"),
    Column("pixel accuracy"),
    Column("images"),
    Column("pixel masks", align="left", wraps=True, formats=_FILES),
)


def headline_document(headline: Headline, store: Store) -> Document:
    """Return a headline's report, with the results so far, as a document for every format."""
    results = read_results(headline, store)
    found = findings(results)
    other = results.scale.other_classes
    legend = tuple(Text(line, "soft") for line in _legend(headline, with_paper=not other))
    code = about(n.figures["environment"] for n in results.networks if n.figures)
    sections = [_table_i(results), _table_ii(results)]
    if results.labels:
        sections.append(_labels(results))
    if picture := _gallery(results, store):
        title = picture.title
        sections.append(Section(title, "Gallery", "gallery", (picture,), formats=ON_PAGES))
    provenance = (Bullets.of(_provenance(results, store)),)
    return Document(
        title=f"Tables I and II: from {headline.cell} to segmentation",
        head=(
            answer(results, store),
            *map(Text, describe(headline).splitlines()),
            *warning(results.scale),
            *((Bullets(found),) if found else ()),
            Only(_FILES, (code,)),
            Only(HTML, (Details(HOW_TO_READ, legend),)),
        ),
        sections=(
            *sections,
            *(() if other else (paper_section(notes_on(("I", "II")), ON_PAGES),)),
            Section("Provenance", "Provenance", "provenance", provenance, formats=ON_PAGES),
            Section(HOW_TO_READ, HOW_TO_READ, "legend", legend, formats=ALL - HTML),
        ),
        records=Records.of(list(_records(results))),
        mark=results.scale.word,
    )


def _legend(headline: Headline, *, with_paper: bool) -> Iterator[str]:
    if with_paper:
        yield (
            "Rows marked as printed are copied from Qin et al., TCSVT 2024, VOC 2012 val and test; "
            "nothing in them was measured here."
        )
    yield (
        "Each measured row is one training: another seed may move it by a point or more. The 95 % "
        "over images (paired bootstrap) are where its mIoU on very many images of this kind lies; "
        "from fewer than some 300 images they are too narrow. A dash: an earlier version scored "
        "it, and did not count by image."
    )
    yield f"{headline.choice}."
    yield (
        "Only the supervised bound is trained on pixel masks. All other networks are trained from "
        "image-level labels; masks only score their labels and predictions."
    )
    sources = [chain.labels.refinement for chain in headline.chains if chain.labels]
    if any(source.startswith("random_walk") for source in sources):
        yield (
            "Settings of the random walk that differ from the published values were chosen on real "
            "images at small scale, with pixel masks."
        )
    yield (
        "In Table II, a dash means that the class is in no scored image and in no prediction, so "
        "it has no IoU and does not count in the mean; 0.0, that the class occurs but none of its "
        "pixels is right."
    )
    if any(chain.segmentation.test_crf for chain in headline.chains):
        yield "The networks' predictions are refined by a dense CRF (test_crf)."


# Tables


def _table(
    results: Results, number: str, title: str, grid: Grid, *more: Block, scale: str
) -> Section:
    """Return a table's section. What says the scale is below it, too, in case it is copied."""
    below = Only(_FILES, (Text(scale, "soft"),)), Only(ON_PAGES, warning(results.scale))
    heading = title if title.startswith(grid.name) else f"{grid.name}. {title}"
    blocks = (grid, *more, *below)
    return Section(heading, grid.name, f"table-{number}", blocks, number, f"{title}.")


def _network_scale(results: Results) -> str:
    """Return data, images and network of Tables I and II."""
    sweep = results.headline.sweep
    data = sweep.base.data
    scored = (row.figures["eval_images"] for row in results.networks if row.figures)
    return (
        f"data {data.name} [{data.fingerprint}]: {sweep.num_train_images:,} images trained "
        f"({data.train_split}), {next(scored, 'no')} scored ({results.split}) | "
        f"{describe_segmentation(results.headline)} | one training per row"
    )


def _table_i(results: Results) -> Section:
    """Return the section of Table I; a terminal shows only the paper's own printed row."""
    measured = tuple(_measured_row(results, row) for row in results.networks)
    printed = tuple(
        Row(
            (OURS_IN_FULL if row.method == OURS else row.method,),
            (
                f"{row.val:.1f}",
                DASH,
                f"{row.test:.1f}",
                row.backbone,
                SALIENCY if row.saliency else IMAGE_LABELS,
                row.publication or "TCSVT24",
                "not stated",
            ),
            strong=row.method == OURS,
            formats=ALL if row.method == OURS else _FILES,
        )
        for row in (() if results.scale.other_classes else TABLE_I)
    )
    groups = RowGroup(MEASURED, measured), RowGroup(PRINTED, printed)
    grid = Grid("Table I", ("method",), _TABLE_I, groups, group_name="origin", style="numbers")
    return _table(results, "I", "Segmentation mIoU (%)", grid, scale=_network_scale(results))


def _measured_row(results: Results, row: Network) -> Row:
    on_split = "" if results.split == "val" else f" ({results.split})"
    test = DASH if results.scale.other_classes else "server only"
    if row.archive and row.archive.split == "test":
        miou = row.archive.miou
        test = "archive for the server" if miou is None else number(miou)
    entries = (
        MISSING if row.miou is None else f"{number(row.miou)}{on_split}",
        interval(results.image_interval(row.source)),
        test,
        row.chain.segmentation.backbone,
        row.supervision,
        DASH,
        row.saw,
    )
    return Row((row.name,), entries, strong=True)


def _table_ii(results: Results) -> Section:
    """Return the section of Table II, a row per class, in the paper's number of digits."""
    printed = () if results.scale.other_classes else TABLE_II
    columns = [
        Column(
            row.method,
            short=OURS_IN_FULL if row.method == OURS else "",
            group=PRINTED,
            formats=ALL if row.method == OURS else _FILES,
        )
        for row in printed
    ]
    columns += [Column(row.name, group=MEASURED, shaded=True) for row in results.networks]
    classes = []
    for at, name in enumerate(results.class_names):
        ious = [_one_digit(row.ious[at]) for row in printed]
        ious += [_one_digit(n.ious.get(name)) if n.figures else "" for n in results.networks]
        classes.append(Row((name,), tuple(ious)))
    means = [_one_digit(row.printed_mean) for row in printed]
    means += [MISSING if row.miou is None else _one_digit(row.miou) for row in results.networks]
    mean = Row(("mean",), tuple(means), strong=True)
    groups = RowGroup("", tuple(classes)), RowGroup("", (mean,))
    grid = Grid("Table II", ("class",), tuple(columns), groups, style="numbers")
    title = f"IoU per class (%), {results.split}"
    return _table(results, "II", title, grid, scale=_network_scale(results))


def _one_digit(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _labels(results: Results) -> Section:
    headline = results.headline
    rows = [
        Row(
            (row.name,),
            (
                number(row.miou),
                signed(row.gain),
                number(row.pixel_accuracy),
                str(row.num_images) if row.num_images else DASH,
                row.saw,
            ),
        )
        for row in results.labels
    ]
    cells = dict(cell for table in headline.sweep.plan.tables for cell in table.cells())
    paper = cells[headline.cell].paper
    if paper is not None and not results.scale.other_classes:
        name = f"paper, {headline.cell} ({PRINTED})"
        entries = (number(paper), DASH, DASH, DASH, "not stated")
        rows.append(Row((name,), entries))
    grid = Grid("Labels", ("labels",), _LABELS, in_one_group(rows), style="numbers")
    about = (
        f"All rows are made from the same CAMs, those of {headline.cell}, and scored on "
        f"{headline.sweep.base.data.eval_split}; mIoU in percent."
    )
    title = "Labels of training images, before and after refinement (%)"
    return _table(results, "L", title, grid, Text(about), scale=headline.sweep.describe())


# Records

Line = dict[str, object]


def _records(results: Results) -> Iterator[Line]:
    """Yield a row per number; `origin` says whether the paper printed it or it was measured."""
    for method in () if results.scale.other_classes else TABLE_I:
        line: Line = {
            "table": "I",
            "origin": PRINTED,
            "method": method.method,
            "publication": method.publication,
            "backbone": method.backbone,
            "supervision": SALIENCY if method.saliency else IMAGE_LABELS,
            "quantity": "mIoU",
        }
        yield line | {"split": "val", "percent": method.val}
        yield line | {"split": "test", "percent": method.test}
    for row in () if results.scale.other_classes else TABLE_II:
        line = {"table": "II", "origin": PRINTED, "method": row.method, "split": "val"}
        for quantity, iou in zip(results.class_names, row.ious, strict=True):
            yield line | {"quantity": quantity, "percent": iou}
        yield line | {"quantity": "mIoU", "percent": row.printed_mean}
    sweep, segmentation = results.headline.sweep, results.headline.chains[0].segmentation
    common: Line = {
        "cell": results.headline.cell,
        "preset": sweep.preset,
        "data": f"{sweep.base.data.name} {sweep.base.data.fingerprint}",
        "train_images": sweep.num_train_images,
        "iterations": segmentation.iterations,
        "rng_seed": segmentation.rng_seed,
        "small_scale": "yes" if results.scale.marks else "no",
    }
    for network in results.networks:
        found = {"mIoU": network.miou, **{n: network.ious.get(n) for n in results.class_names}}
        for quantity, percent in found.items():
            yield {
                "table": "I" if quantity == "mIoU" else "II",
                "origin": MEASURED,
                "method": network.name,
                "publication": None,
                "backbone": network.chain.segmentation.backbone,
                "supervision": network.supervision,
                "split": results.split,
                "quantity": quantity,
                "percent": percent,
                "pixel_masks": network.saw,
                "images": network.figures.get("eval_images", 0),
                **common,
                "prediction_id": network.chain.prediction_id,
            }
    for label in results.labels:
        yield {
            "table": "labels",
            "origin": MEASURED,
            "method": label.name,
            "quantity": "mIoU",
            "split": sweep.base.data.eval_split,
            "percent": label.miou,
            "supervision": IMAGE_LABELS,
            "pixel_masks": label.saw,
            "images": label.num_images,
            **common,
        }


# Gallery and provenance


def _gallery(results: Results, store: Store) -> Picture | None:
    """Draw every network's predictions of the same images; None if no predictions are here.

    The picture is also written beside the report, as gallery.png.
    """
    dataset, split = VocDataset(results.headline.sweep.data), results.split
    shown = evenly_spaced(dataset.image_ids(split))
    folders = dict[str, Path]()
    for network in sorted(results.networks, key=lambda n: n.source == SUPERVISED):  # it is last
        folder = store.folder(Predict(network.chain).images_rel).path
        if network.figures and all((folder / f"{name}.png").exists() for name in shown):
            folders["true masks" if network.source == SUPERVISED else network.name] = folder
    if not folders:
        return None
    path = results.headline.report_folder(store) / "gallery.png"
    draw_gallery(path, folders, dataset, shown, legend=True, dots_per_inch=DOTS_PER_INCH)
    caption = (
        f"Image, ground truth, and the prediction of the network trained on: {'; '.join(folders)}. "
        f"{len(shown)} images evenly spaced over {split}, as the paper's Figure 5."
    )
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return Picture(f"Segmentations of {split}", caption, image=uri, file=path.name, wide=True)


def _provenance(results: Results, store: Store) -> Iterator[tuple[str, str]]:
    base, networks = results.headline.sweep.base, results.networks
    yield "data", f"{base.data.name}, {base.data.fingerprint}"
    yield "CAM weights", base.network.weights
    yield "DeepLab weights", networks[0].chain.segmentation.weights
    yield "store", store.remote.url or store.root.name
    for network in networks:
        ids = ", ".join(f"{stage} {value}" for stage, value in network.chain.ids().items())
        yield f"ids of {network.name}", ids
    for network in networks:
        if found := network.figures:
            versions = ", ".join(f"{k} {v}" for k, v in found["environment"].items())
            trained = f"DeepLab trained {found['train_seconds']:.0f} s"
            yield f"run of {network.name}", f"{trained}; {versions}"
    for network in networks:
        if archive := network.archive:
            tar = archive.tar.relative_to(store.root)
            yield f"archive of {network.name}", f"{archive.split}: {tar}"
    yield "report written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
