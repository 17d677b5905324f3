"""A headline's report as a document: the paper's Tables I and II with our rows, and the labels.

Rows marked as printed are the paper's; nothing in them was measured here.
"""

from collections.abc import Iterator

from sweeps.evidence.seeds import mean_sd
from sweeps.plan.headline import SUPERVISED, Headline, describe
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
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II
from wsss.printable import counted

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
_RECORD = (
    "table",
    "origin",
    "method",
    "publication",
    "backbone",
    "supervision",
    "split",
    "quantity",
    "percent",
    "pixel_masks",
    "images",
    "cell",
    "preset",
    "data",
    "train_images",
    "iterations",
    "rng_seed",
    "prediction_id",
    "small_scale",
)


def headline_document(report: HeadlineReport) -> Document:
    """Return what the report says, in every format."""
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
    sections.append(paper_section(report.paper_notes, ON_PAGES))
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
        records=Records(
            _RECORD, tuple(tuple(line.get(name) for name in _RECORD) for line in _records(report))
        ),
        mark=report.scale.word,
    )


def _legend(headline: Headline) -> tuple[str, ...]:
    """Return how to read the tables."""
    lines = [
        "Rows marked as printed are copied from Qin et al., TCSVT 2024, VOC 2012 val and test; "
        "nothing in them was measured here. Measured rows are one training each: another seed may "
        "move them by a point or more.",
        f"{headline.choice}.",
        "Pixel masks train the supervised bound alone. All other networks saw image-level labels; "
        "masks scored their labels and predictions.",
    ]
    sources = {chain.labels.refinement for chain in headline.chains if chain.labels}
    if any(source.startswith("random_walk") for source in sources):
        lines.append(
            "Where the random walk's settings are not the published values, they were tried on "
            "real pictures at small scale, which saw pixel masks."
        )
    lines.append(
        "In Table II, a dash: the class is in no scored image and in no prediction, so that it has "
        "no IoU and no part in the mean. 0.0: the class occurs, and not one pixel of it is right."
    )
    if any(chain.segmentation.test_crf for chain in headline.chains):
        lines.append("A dense CRF refines the networks' predictions (test_crf).")
    return tuple(lines)


# Tables


def _table_i(report: HeadlineReport) -> Section:
    """Return the section of Table I; a terminal shows of the printed rows the paper's own."""
    measured = tuple(
        Row(
            (row.name,),
            (
                _miou_on_split(report, row),
                _test_entry(row),
                row.backbone,
                row.supervision,
                DASH,
                row.saw,
            ),
            strong=True,
        )
        for row in report.networks
    )
    printed = tuple(
        Row(
            (OURS_IN_FULL if row.method == OURS else row.method,),
            (
                f"{row.val:.1f}",
                f"{row.test:.1f}",
                row.backbone,
                SALIENCY if row.saliency else IMAGE_LABELS,
                "TCSVT24" if row.method == OURS else row.publication,
                "not stated",
            ),
            strong=row.method == OURS,
            faint=report.scale.other_classes,
            formats=ALL if row.method == OURS else _FILES,
        )
        for row in TABLE_I
    )
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


def _miou_on_split(report: HeadlineReport, row: NetworkRow) -> str:
    """Return a network's figure, with the split's name unless it is val."""
    if row.miou is None:
        return MISSING
    return number(row.miou) if report.split == "val" else f"{number(row.miou)} ({report.split})"


def _test_entry(row: NetworkRow) -> str:
    """Return what stands in a measured row's test column."""
    if row.tar is None or row.tar_split != "test":
        return "server only"
    return "archive for the server" if row.tar_miou is None else number(row.tar_miou)


def _table_ii(report: HeadlineReport) -> Section:
    """Return the section of Table II, a line per class; printed digits as printed."""
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
    other = "The data set has other classes than VOC, so the paper's rows have no place here."
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
    """Return a network's IoU of a class; a dash where the class does not occur."""
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
    grid = Grid("Labels", ("labels",), _LABELS, in_one_group(tuple(rows)), style="numbers")
    split = report.headline.sweep.base.data.eval_split
    about = (
        f"All rows rest on the same CAMs, those of {report.headline.cell}, and are scored on "
        f"{split}; mIoU in percent."
    )
    return Section(
        "Labels of training images, before and behind refinement",
        "Labels",
        "labels",
        (Text(about), grid, *_below(report, report.label_scale)),
        "L",
        "Labels of training images before and behind refinement, percent.",
    )


def _below(report: HeadlineReport, scale: str) -> tuple[Block, ...]:
    """Return what stands under every table that is copied from the report: its scale."""
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
    """Yield a line per number; `origin` parts what the paper printed from what was measured."""
    yield from _printed_records(report)
    common = _common(report)
    for row in report.networks:
        line = common | {
            "origin": MEASURED,
            "method": row.name,
            "backbone": row.backbone,
            "supervision": row.supervision,
            "split": report.split,
            "pixel_masks": row.saw,
            "images": row.num_images,
            "prediction_id": dict(row.ids)["prediction"],
        }
        yield line | {"table": "I", "quantity": "mIoU", "percent": row.miou}
        for name in report.class_names:
            yield line | {"table": "II", "quantity": name, "percent": row.ious.get(name)}
    for label in report.labels:
        yield common | {
            "table": "labels",
            "origin": MEASURED,
            "method": label.name,
            "quantity": "mIoU",
            "split": report.headline.sweep.base.data.eval_split,
            "percent": label.miou,
            "supervision": IMAGE_LABELS,
            "pixel_masks": label.saw,
            "images": label.num_images,
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

    The paper gives no spread of its figure: the answer gives ours, where the store has several
    seeds, and never says more than "cannot tell".
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
    """Return what came out, and why it decides nothing."""
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
        return f"{measured}, and the paper's {paper:.1f} is of other data or another scale"
    if report.split != "val":
        return f"{measured}, and the paper prints {paper:.1f} for val"
    return (
        f"{measured}, {mean - paper:+.2f} to the paper's {paper:.1f}, which comes without a spread"
    )
