"""Rows of the headline's tables as text; the same in all outputs."""

from sweeps.plan.headline import SUPERVISED, Headline
from sweeps.report.headline.model import MEASURED, PRINTED, HeadlineReport, NetworkRow
from sweeps.report.words import DASH, MISSING, number, signed
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II

TABLE_I_COLUMNS = (
    "method", "origin", "publication", "backbone", "supervision", "val", "test", "pixel masks",
)  # fmt: skip
LABEL_COLUMNS = ("labels", "mIoU", "gain", "pixel accuracy", "images", "pixel masks")

Lines = list[tuple[str, ...]]


def printed_i() -> Lines:
    """Return all rows of the paper's Table I under `TABLE_I_COLUMNS`."""
    return [
        (
            "Ours (the paper)" if row.method == OURS else row.method,
            PRINTED,
            "TCSVT24" if row.method == OURS else row.publication,
            row.backbone,
            "image labels, saliency" if row.saliency else "image labels",
            f"{row.val:.1f}",
            f"{row.test:.1f}",
            "not stated",
        )
        for row in TABLE_I
    ]


def measured_i(report: HeadlineReport) -> Lines:
    """Return our rows under `TABLE_I_COLUMNS`."""
    return [
        (
            row.name, MEASURED, DASH, row.backbone, row.supervision, val_miou(report, row),
            test_entry(row), row.saw,
        )
        for row in report.networks
    ]  # fmt: skip


def val_miou(report: HeadlineReport, row: NetworkRow) -> str:
    """Return a network's figure, with the split's name unless it is val."""
    if row.miou is None:
        return MISSING
    return number(row.miou) if report.split == "val" else f"{number(row.miou)} ({report.split})"


def test_entry(row: NetworkRow) -> str:
    """Return what stands in a measured row's test column."""
    if row.tar is None or row.tar_split != "test":
        return "server only"
    return "archive for the server" if row.tar_miou is None else number(row.tar_miou)


def class_columns(report: HeadlineReport) -> list[str]:
    """Return the heads of Table II, which has a line per class."""
    printed = [f"{row.method} ({PRINTED})" for row in TABLE_II] if report.same_classes else []
    return ["class", *printed, *(f"{row.name} ({MEASURED})" for row in report.networks)]


def class_lines(report: HeadlineReport) -> Lines:
    """Return a line per class under `class_columns`, and the mean; printed digits as printed."""
    lines: Lines = []
    for index, name in enumerate(report.class_names):
        printed = [f"{row.ious[index]:.1f}" for row in TABLE_II] if report.same_classes else []
        measured = [iou(row, name) for row in report.networks]
        lines.append((name, *printed, *measured))
    means = [f"{row.printed_mean:.1f}" for row in TABLE_II] if report.same_classes else []
    measured = [MISSING if row.miou is None else f"{row.miou:.1f}" for row in report.networks]
    return [*lines, ("mean", *means, *measured)]


def iou(row: NetworkRow, name: str) -> str:
    """Return a network's IoU of a class; a dash where the class does not occur."""
    value = row.ious.get(name)
    return DASH if value is None else f"{value:.1f}"


def label_lines(report: HeadlineReport) -> Lines:
    """Return the rows of the table of labels under `LABEL_COLUMNS`."""
    lines: Lines = [
        (
            row.name, number(row.miou), signed(row.gain), number(row.pixel_accuracy),
            str(row.num_images) if row.num_images else DASH, row.saw,
        )
        for row in report.labels
    ]  # fmt: skip
    if report.labels_paper is not None:
        cell = f"paper, {report.headline.cell} ({PRINTED})"
        lines.append((cell, number(report.labels_paper), DASH, DASH, DASH, "not stated"))
    return lines


def saw_masks(source: str, headline: Headline) -> str:
    """Return what pixel masks were used for, from the CAMs to a network's score."""
    if source == SUPERVISED:
        return "trained on those of the training images; scored on those of the split"
    if headline.chosen_by_masks:
        return "scoring, and the choice of the CAM configuration on training images"
    return "scoring only"


def legend(headline: Headline) -> tuple[str, ...]:
    """Return how to read the tables."""
    lines = [
        "Rows marked as printed are copied from Qin et al., TCSVT 2024, VOC 2012 val and test; "
        "nothing in them was measured here. Measured rows are one training each: another seed may "
        "move them by a point or more, and no spread is known.",
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
    if any(chain.segmentation.test_crf for chain in headline.chains):
        lines.append("A dense CRF refines the networks' predictions (test_crf).")
    return tuple(lines)
