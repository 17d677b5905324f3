"""A headline's report as a document: the paper's Tables I and II with our rows, and the labels."""

from collections.abc import Iterator

from sweeps.evidence.seeds import mean_sd
from sweeps.plan.chains.headline import SUPERVISED, Headline, describe
from sweeps.report.document import (
    ALL,
    DASH,
    ON_PAGES,
    Block,
    Bullets,
    Column,
    Details,
    Document,
    Facts,
    Format,
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
from sweeps.report.words import HOW_TO_READ, MISSING, mean_and_sd, number, paper_section, signed
from sweeps.tables.notes import notes_on
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II, SegmentationRow
from wsss.basics.printable import counted

PRINTED = "printed by the paper"
MEASURED = "measured here"
OURS_IN_FULL = "Ours (the paper)"
IMAGE_LABELS, SALIENCY = "image labels", "image labels, saliency"

_TERMINAL = frozenset({Format.terminal})
_FILES = ALL - _TERMINAL
_HTML = frozenset({Format.html})

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
    head: list[Block] = [
        answer(report),
        Only(_FILES, (Text(report.network_scale),)),
        Only(_TERMINAL, tuple(map(Text, describe(report.headline).splitlines()))),
    ]
    if report.scale.word:
        head.append(Text(report.scale.warning, "mark"))
    if report.findings:
        head.append(Bullets(report.findings))
    sections = [_table_i(report), _table_ii(report)]
    if report.labels:
        sections.append(_labels(report))
    if report.gallery:
        title = report.gallery.title
        sections.append(Section(title, "Gallery", "gallery", (report.gallery,), formats=ON_PAGES))
    sections.append(paper_section(notes_on(("I", "II")), ON_PAGES))
    legend = tuple(Text(line, "soft") for line in _legend(report.headline))
    return Document(
        title=report.title,
        head=(
            *head,
            Only(_FILES, (Facts(("about", "this report"), report.about),)),
            Only(_HTML, (Details(HOW_TO_READ, legend),)),
        ),
        sections=(
            *sections,
            _provenance_section(report),
            Section(HOW_TO_READ, HOW_TO_READ, "legend", legend, formats=ALL - _HTML),
        ),
        records=Records.of(list(_records(report))),
        mark=report.scale.word,
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
        (grid, *_below(report, report.network_scale)),
        "I",
        "Segmentation mIoU in percent.",
    )


def _measured_row(report: HeadlineReport, row: NetworkRow) -> Row:
    entries = (
        _miou_on_split(report, row),
        _test_entry(row),
        row.backbone,
        row.supervision,
        DASH,
        row.saw,
    )
    return Row((row.name,), entries, strong=True)


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


def _miou_on_split(report: HeadlineReport, row: NetworkRow) -> str:
    """Return a network's mIoU, with the name of the split unless it is val."""
    if row.miou is None:
        return MISSING
    return number(row.miou) if report.split == "val" else f"{number(row.miou)} ({report.split})"


def _test_entry(row: NetworkRow) -> str:
    if row.tar is None or row.tar_split != "test":
        return "server only"
    return "archive for the server" if row.tar_miou is None else number(row.tar_miou)


def _table_ii(report: HeadlineReport) -> Section:
    """Return the section of Table II, a row per class, in the paper's number of digits."""
    printed, measured = TABLE_II if not report.scale.other_classes else (), report.networks
    columns = [
        Column(
            row.method,
            short=OURS_IN_FULL if row.method == OURS else "",
            group=PRINTED,
            formats=ALL if row.method == OURS else _FILES,
        )
        for row in printed
    ]
    columns += [Column(row.name, group=MEASURED, shaded=True) for row in measured]
    classes = tuple(
        Row(
            (name,),
            (*(f"{row.ious[at]:.1f}" for row in printed), *(_iou(row, name) for row in measured)),
        )
        for at, name in enumerate(report.class_names)
    )
    means = [f"{row.printed_mean:.1f}" for row in printed]
    means += [MISSING if row.miou is None else f"{row.miou:.1f}" for row in measured]
    groups = RowGroup("", classes), RowGroup("", (Row(("mean",), tuple(means), strong=True),))
    grid = Grid("Table II", ("class",), tuple(columns), groups, style="numbers")
    other = "The data set has other classes than VOC, so the paper's rows are left out."
    return Section(
        f"Table II. IoU per class (%), {report.split}",
        "Table II",
        "table-II",
        (
            grid,
            *(() if not report.scale.other_classes else (Text(other, "soft"),)),
            *_below(report, report.network_scale),
        ),
        "II",
        f"IoU per class in percent, {report.split}.",
    )


def _iou(row: NetworkRow, name: str) -> str:
    value = row.ious.get(name)
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
    if report.labels_paper is not None:
        name = f"paper, {report.headline.cell} ({PRINTED})"
        entries = (number(report.labels_paper), DASH, DASH, DASH, "not stated")
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


# The other sections


def _provenance_section(report: HeadlineReport) -> Section:
    facts = (*report.provenance, ("report written", report.created))
    blocks = (Facts(("what", "value"), facts),)
    return Section("Provenance", "Provenance", "provenance", blocks, formats=ON_PAGES)


# Records


Line = dict[str, object]


def _records(report: HeadlineReport) -> Iterator[Line]:
    """Yield a row per number; `origin` says whether the paper printed it or it was measured."""
    yield from _printed_records(report)
    for row in report.networks:
        ious = {("II", name): row.ious.get(name) for name in report.class_names}
        for (table, quantity), percent in {("I", "mIoU"): row.miou, **ious}.items():
            yield {
                "table": table,
                "origin": MEASURED,
                "method": row.name,
                "publication": None,
                "backbone": row.backbone,
                "supervision": row.supervision,
                "split": report.split,
                "quantity": quantity,
                "percent": percent,
                "pixel_masks": row.saw,
                "images": row.num_images,
                **_common(report),
                "prediction_id": dict(row.ids)["prediction"],
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


def _printed_records(report: HeadlineReport) -> Iterator[Line]:
    for row in TABLE_I:
        for split, value in (("val", row.val), ("test", row.test)):
            yield {
                "table": "I",
                "origin": PRINTED,
                "method": row.method,
                "publication": row.publication,
                "backbone": row.backbone,
                "supervision": SALIENCY if row.saliency else IMAGE_LABELS,
                "split": split,
                "quantity": "mIoU",
                "percent": value,
            }
    for classes in TABLE_II if not report.scale.other_classes else ():
        ious = zip(report.class_names, classes.ious, strict=True)
        for name, value in (*ious, ("mIoU", classes.printed_mean)):
            yield {
                "table": "II",
                "origin": PRINTED,
                "method": classes.method,
                "split": "val",
                "quantity": name,
                "percent": value,
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
    weak = [(r.miou, r) for r in report.networks if r.source != SUPERVISED and r.miou is not None]
    if not weak:
        return "no network from image labels is finished"
    found = [(miou, row) for miou, row in weak if not row.finds_background_alone]
    if not found:
        return "no network from image labels finds more than the background"
    _, best = max(found, key=lambda pair: pair[0])
    paper = next(row.val for row in TABLE_I if row.method == OURS)
    mean, sd = mean_sd(list(best.by_seed.values()))
    seeds = f"over {len(best.by_seed)} seeds" if sd is not None else "with one seed"
    reaches = f"reaches {mean_and_sd(mean, sd)} mIoU on {report.split} {seeds}"
    measured = f"the network on {best.name} {reaches}"
    if report.scale.word:
        return f"{measured}; the paper's {paper:.1f} is on other data or at another scale"
    if report.split != "val":
        return f"{measured}; the paper prints {paper:.1f} for val"
    return f"{measured}, {mean - paper:+.2f} from the paper's {paper:.1f}, which has no spread"
