"""A headline's report as a document: the paper's Tables I and II with our rows, and the labels."""

from collections.abc import Iterator
from statistics import fmean

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
    Facts,
    Grid,
    Only,
    Records,
    Row,
    RowGroup,
    Section,
    Strip,
    Text,
    in_one_group,
)
from sweeps.report.headline.build import HeadlineReport, NetworkRow
from sweeps.report.words import (
    HOW_TO_READ,
    MISSING,
    mean_and_sd,
    mean_sd,
    number,
    paper_section,
    signed,
)
from sweeps.tables.notes import notes_on
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II, SegmentationRow
from wsss.basics.printable import counted

PRINTED = "printed by the paper"
MEASURED = "measured here"
OURS_IN_FULL = "Ours (the paper)"
IMAGE_LABELS, SALIENCY = "image labels", "image labels, saliency"

_FILES = ALL - TERMINAL

_TABLE_I = (
    Column("val"),
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


def headline_document(report: HeadlineReport) -> Document:
    """Return the report as a document for every format."""
    legend = tuple(Text(line, "soft") for line in _legend(report.headline))
    sections = [_table_i(report), _table_ii(report)]
    if report.labels:
        sections.append(_labels(report))
    if report.gallery:
        title = report.gallery.title
        sections.append(Section(title, "Gallery", "gallery", (report.gallery,), formats=ON_PAGES))
    provenance = (Facts(("what", "value"), report.provenance),)
    return Document(
        title=f"Tables I and II: from {report.headline.cell} to segmentation",
        head=(
            answer(report),
            Only(_FILES, (Text(_network_scale(report)),)),
            Only(TERMINAL, tuple(map(Text, describe(report.headline).splitlines()))),
            *((Text(report.scale.warning, "mark"),) if report.scale.word else ()),
            *((Bullets(report.findings),) if report.findings else ()),
            Only(_FILES, (Facts(("about", "this report"), report.about),)),
            Only(HTML, (Details(HOW_TO_READ, legend),)),
        ),
        sections=(
            *sections,
            paper_section(notes_on(("I", "II")), ON_PAGES),
            Section("Provenance", "Provenance", "provenance", provenance, formats=ON_PAGES),
            Section(HOW_TO_READ, HOW_TO_READ, "legend", legend, formats=ALL - HTML),
        ),
        records=Records.of(list(_records(report))),
        mark=report.scale.word,
    )


def _network_scale(report: HeadlineReport) -> str:
    """Return data, images and network of Tables I and II."""
    sweep = report.headline.sweep
    data = sweep.base.data
    images = next((str(row.num_images) for row in report.networks if row.num_images), "no")
    return (
        f"data {data.name} [{data.fingerprint}]: {sweep.num_train_images} images trained "
        f"({data.train_split}), {images} scored ({report.split}) | "
        f"{describe_segmentation(report.headline)} | one training per row"
    )


def _legend(headline: Headline) -> tuple[str, ...]:
    lines = [
        "Rows marked as printed are copied from Qin et al., TCSVT 2024, VOC 2012 val and test; "
        "nothing in them was measured here. Each measured row is one training: another seed may "
        "move it by a point or more.",
        f"{headline.choice}.",
        "Only the supervised bound is trained on pixel masks. All other networks are trained from "
        "image-level labels; masks only score their labels and predictions.",
    ]
    sources = {chain.labels.refinement for chain in headline.chains if chain.labels}
    if any(source.startswith("random_walk") for source in sources):
        lines.append(
            "Settings of the random walk that differ from the published values were chosen on real "
            "images at small scale, with pixel masks."
        )
    lines.append(
        "In Table II, a dash means that the class is in no scored image and in no prediction, so "
        "it has no IoU and does not count in the mean; 0.0, that the class occurs but none of its "
        "pixels is right."
    )
    if any(chain.segmentation.test_crf for chain in headline.chains):
        lines.append("The networks' predictions are refined by a dense CRF (test_crf).")
    return tuple(lines)


# Tables


def _table_i(report: HeadlineReport) -> Section:
    """Return the section of Table I; a terminal shows only the paper's own printed row."""
    measured = tuple(_measured_row(report, row) for row in report.networks)
    printed = tuple(_printed_row(row, faint=report.scale.other_classes) for row in TABLE_I)
    groups = RowGroup(MEASURED, measured), RowGroup(PRINTED, printed)
    grid = Grid("Table I", ("method",), _TABLE_I, groups, group_name="origin", style="numbers")
    return Section(
        "Table I. Segmentation mIoU (%)",
        "Table I",
        "table-I",
        (grid, *_below(report, _network_scale(report))),
        "I",
        "Segmentation mIoU in percent.",
    )


def _measured_row(report: HeadlineReport, row: NetworkRow) -> Row:
    on_split = "" if report.split == "val" else f" ({report.split})"
    test = "server only"
    if row.archive and row.archive.split == "test":
        miou = row.archive.miou
        test = "archive for the server" if miou is None else number(miou)
    entries = (
        MISSING if row.miou is None else f"{number(row.miou)}{on_split}",
        test,
        row.chain.segmentation.backbone,
        _supervision(row),
        DASH,
        row.saw,
    )
    return Row((row.name,), entries, strong=True)


def _supervision(row: NetworkRow) -> str:
    return "pixel masks" if row.source == SUPERVISED else IMAGE_LABELS


def _printed_row(row: SegmentationRow, *, faint: bool) -> Row:
    is_ours = row.method == OURS
    entries = (
        f"{row.val:.1f}",
        f"{row.test:.1f}",
        row.backbone,
        SALIENCY if row.saliency else IMAGE_LABELS,
        "TCSVT24" if is_ours else row.publication,
        "not stated",
    )
    name = OURS_IN_FULL if is_ours else row.method
    return Row((name,), entries, is_ours, faint, ALL if is_ours else _FILES)


def _table_ii(report: HeadlineReport) -> Section:
    """Return the section of Table II, a row per class, in the paper's number of digits."""
    printed = () if report.scale.other_classes else TABLE_II
    columns = [
        Column(
            row.method,
            short=OURS_IN_FULL if row.method == OURS else "",
            group=PRINTED,
            formats=ALL if row.method == OURS else _FILES,
        )
        for row in printed
    ]
    columns += [Column(row.name, group=MEASURED, shaded=True) for row in report.networks]
    classes = []
    for at, name in enumerate(report.class_names):
        ious = [row.ious[at] for row in printed] + [row.ious.get(name) for row in report.networks]
        classes.append(Row((name,), tuple(map(_one_digit, ious))))
    means = [_one_digit(row.printed_mean) for row in printed]
    means += [MISSING if row.miou is None else _one_digit(row.miou) for row in report.networks]
    mean = Row(("mean",), tuple(means), strong=True)
    groups = RowGroup("", tuple(classes)), RowGroup("", (mean,))
    grid = Grid("Table II", ("class",), tuple(columns), groups, style="numbers")
    other = "The data set has other classes than VOC, so the paper's rows are left out."
    left_out = (Text(other, "soft"),) if report.scale.other_classes else ()
    return Section(
        f"Table II. IoU per class (%), {report.split}",
        "Table II",
        "table-II",
        (grid, *left_out, *_below(report, _network_scale(report))),
        "II",
        f"IoU per class in percent, {report.split}.",
    )


def _one_digit(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _labels(report: HeadlineReport) -> Section:
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
        for row in report.labels
    ]
    cells = (cell for table in report.headline.sweep.plan.tables for cell in table.cells())
    paper = dict(cells)[report.headline.cell].paper
    if paper is not None:
        name = f"paper, {report.headline.cell} ({PRINTED})"
        entries = (number(paper), DASH, DASH, DASH, "not stated")
        rows.append(Row((name,), entries, faint=report.scale.other_classes))
    grid = Grid("Labels", ("labels",), _LABELS, in_one_group(rows), style="numbers")
    split = report.headline.sweep.base.data.eval_split
    about = (
        f"All rows are made from the same CAMs, those of {report.headline.cell}, and scored on "
        f"{split}; mIoU in percent."
    )
    return Section(
        "Labels of training images, before and after refinement",
        "Labels",
        "labels",
        (Text(about), grid, *_below(report, report.headline.sweep.describe())),
        "L",
        "Labels of training images before and after refinement, percent.",
    )


def _below(report: HeadlineReport, scale: str) -> tuple[Block, ...]:
    """Return what every table says below it, in case it is copied: the scale of the runs."""
    mark = (Only(ON_PAGES, (Text(report.scale.warning, "mark"),)),) if report.scale.word else ()
    return Only(_FILES, (Text(scale, "soft"),)), *mark


# Records


Line = dict[str, object]


def _records(report: HeadlineReport) -> Iterator[Line]:
    """Yield a row per number; `origin` says whether the paper printed it or it was measured."""
    printed: Line = {"origin": PRINTED, "quantity": "mIoU"}
    for method in TABLE_I:
        supervision = SALIENCY if method.saliency else IMAGE_LABELS
        line = {"method": method.method, "publication": method.publication, "table": "I"}
        line |= {"backbone": method.backbone, "supervision": supervision}
        yield printed | line | {"split": "val", "percent": method.val}
        yield printed | line | {"split": "test", "percent": method.test}
    for classes in () if report.scale.other_classes else TABLE_II:
        ious = zip(report.class_names, classes.ious, strict=True)
        for name, value in (*ious, ("mIoU", classes.printed_mean)):
            line = {"table": "II", "method": classes.method, "split": "val"}
            yield printed | line | {"quantity": name, "percent": value}
    for row in report.networks:
        found = ((name, row.ious.get(name)) for name in report.class_names)
        for quantity, percent in (("mIoU", row.miou), *found):
            yield {
                "table": "I" if quantity == "mIoU" else "II",
                "origin": MEASURED,
                "method": row.name,
                "publication": None,
                "backbone": row.chain.segmentation.backbone,
                "supervision": _supervision(row),
                "split": report.split,
                "quantity": quantity,
                "percent": percent,
                "pixel_masks": row.saw,
                "images": row.num_images,
                **_common(report),
                "prediction_id": row.chain.prediction_id,
            }
    for label in report.labels:
        yield {
            "table": "labels",
            "origin": MEASURED,
            "method": label.name,
            "quantity": "mIoU",
            "split": report.headline.sweep.base.data.eval_split,
            "percent": label.miou,
            "supervision": IMAGE_LABELS,
            "pixel_masks": label.saw,
            "images": label.num_images,
            **_common(report),
        }


def _common(report: HeadlineReport) -> Line:
    sweep, segmentation = report.headline.sweep, report.headline.chains[0].segmentation
    return {
        "cell": report.headline.cell,
        "preset": sweep.preset,
        "data": f"{sweep.base.data.name} {sweep.base.data.fingerprint}",
        "train_images": sweep.num_train_images,
        "iterations": segmentation.iterations,
        "rng_seed": segmentation.rng_seed,
        "small_scale": "yes" if report.scale.marks else "no",
    }


def answer(report: HeadlineReport) -> Strip:
    """Return how far the best network from image labels is from the paper's, and the next step.

    The paper gives no spread, so the answer is always "cannot tell". It gives the measured spread
    if the store has several seeds.
    """
    place = " on this data and at this scale" if report.scale.word else ""
    missing = sum(row.miou is None for row in report.networks)
    lacking = f" {counted(missing, 'network')} missing." if missing else ""
    return Strip(
        f"Does the paper's headline hold{place}?",
        f"Cannot tell: {_why(report)}.{lacking}",
        "open",
        report.command,
    )


def _why(report: HeadlineReport) -> str:
    """Return the result, and why it cannot be decided."""
    weak = [r for r in report.networks if r.source != SUPERVISED and r.miou is not None]
    if not weak:
        return "no network from image labels is finished"
    found = [row for row in weak if not row.finds_background_alone]
    if not found:
        return "no network from image labels finds more than the background"
    best = max(found, key=lambda row: row.miou or 0)
    paper = next(row.val for row in TABLE_I if row.method == OURS)
    values = list(best.by_seed.values())
    seeds = "with one seed" if len(values) == 1 else f"over {len(values)} seeds"
    reaches = f"reaches {mean_and_sd(*mean_sd(values))} mIoU on {report.split} {seeds}"
    measured = f"the network on {best.name} {reaches}"
    if report.scale.word:
        return f"{measured}; the paper's {paper:.1f} is on other data or at another scale"
    if report.split != "val":
        return f"{measured}; the paper prints {paper:.1f} for val"
    apart = f"{fmean(values) - paper:+.2f} from the paper's {paper:.1f}"
    return f"{measured}, {apart}, which has no spread"
