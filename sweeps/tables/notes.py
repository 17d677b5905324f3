"""What does not add up in the printed paper, and what it leaves open, by the tables concerned.

Qin et al., TCSVT 2024. Every figure is computed from the printed numbers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from statistics import pstdev

from sweeps.tables.paper import TABLE_III, TABLE_IV, TABLE_V, TABLE_VI
from sweeps.tables.segmentation import OURS, TABLE_I, TABLE_II, TABLE_II_CLASSES
from sweeps.tables.table import Table
from wsss.config import ViewsConfig

ABLATIONS = ("III", "IV", "V", "VI")
VIEWS = ("III", "V", "views-alone")
"""Tables whose cells train with adjusted views."""
EQ2 = (*VIEWS, "eq2-readings", "alpha-beta-enhanced", "alpha-beta-decreased")


@dataclass(frozen=True)
class PaperNote:
    """One point, in a few sentences."""

    tables: tuple[str, ...]
    """Names of the tables concerned, e.g. ("IV", "VI")."""
    text: str


REPEAT_SD = 0.17
"""Lowest SD (mIoU, percentage points) known from published repeats of CAM and DeepLab trainings."""

EXPECTED_RANGE_OF_16 = 3.532
"""Expected range of 16 independent normal values, in SDs (Tippett 1925, Biometrika 17)."""


OPEN_POINTS = (
    PaperNote(
        ("IV", "factorial"),
        "III-C gives the multi-scale atrous convolution dilation factors of 0, 1, 2, 3, and Figure "
        "4's caption calls D the dilation factor of a 3x3 convolution. A dilation of 0 means "
        "nothing: all nine weights would fall on one pixel. network.atrous has the readings.",
    ),
    PaperNote(
        VIEWS,
        "III-B wants M_e and M_d to agree with the merged M^o and proposes L_s for it; Eq. 5 "
        "compares M_d and M_e with M_o. transfer.similarity_pairs has both.",
    ),
    PaperNote(
        (*VIEWS, "controls", "controls-summed"),
        "Eq. 4 as printed sums over the dimensions of the prediction (20 classes) and divides by "
        "the number of samples. The public code of IRN, SEAM, Puzzle-CAM and ReCAM takes the mean "
        "over both, which has 20 times less weight beside L_s and L_bs in Eq. 7. "
        "train.cls_reduction has both.",
    ),
    PaperNote(
        ABLATIONS,
        "IV-A counts 1,464 training images of VOC 2012 in its first paragraph and 1,462 usable for "
        "segmentation in its second. The paper does not say which images score the pseudo-labels "
        "of Tables III to VI.",
    ),
    PaperNote(
        ABLATIONS,
        "The paper does not name the code that scored its pseudo-labels. Puzzle-CAM's public "
        "evaluate.py starts one of eight shards, so that it scores every eighth image: "
        f"{len(range(0, 1464, 8))} of train's 1,464. A number of that kind is not comparable with "
        "one over the whole split.",
    ),
)


def paper_notes() -> tuple[PaperNote, ...]:
    """Return all notes."""
    return (
        _mean_of_classes(),
        _person(),
        _span_of_lambdas(),
        _parts(),
        _views(),
        _all_white(),
        _both_brighten(),
        *OPEN_POINTS,
        _refinement(),
        _citations(),
    )


def notes_on(tables: Collection[str]) -> tuple[PaperNote, ...]:
    """Return the notes on these tables; each names only the ones asked for."""
    found = (
        replace(note, tables=tuple(name for name in note.tables if name in tables))
        for note in paper_notes()
    )
    return tuple(note for note in found if note.tables)


def _mean_of_classes() -> PaperNote:
    ours = next(row for row in TABLE_II if row.method == OURS)
    others = max(
        abs(row.computed_mean - row.printed_mean) for row in TABLE_II if row.method != OURS
    )
    return PaperNote(
        ("II", "I"),
        f'The 21 classes of the paper\'s row "{OURS}" average {ours.computed_mean:.3f}, not the '
        f"printed {ours.printed_mean:.1f}; the other rows agree with their printed means within "
        f"{others:.2f}.",
    )


def _span_of_lambdas() -> PaperNote:
    mious = list(_printed(TABLE_V).values())
    return PaperNote(
        ("V",),
        f"The {len(mious)} printed cells span {max(mious) - min(mious):.2f} mIoU (SD "
        f"{pstdev(mious):.3f}), and the paper mentions no repeats. Published repeats of such "
        f"trainings vary by {REPEAT_SD:.2f} SD or more: 16 equal settings would then span about "
        f"{EXPECTED_RANGE_OF_16 * REPEAT_SD:.2f}, so one training per cell cannot resolve their "
        "order. Here each weight changes tenfold; the views whose losses they weigh are printed to "
        f"gain {_gains(TABLE_III)['yes,yes']:+.2f} in Table III.",
    )


def _parts() -> PaperNote:
    parts, attention = _gains(TABLE_IV), _gains(TABLE_VI)
    atrous, context, both = parts["yes,no,no"], parts["no,yes,no"], attention["yes,yes"]
    return PaperNote(
        ("IV", "VI"),
        f"Alone, the parts gain {atrous:+.2f} (multi-scale atrous), {context:+.2f} (context "
        f"association) and {both:+.2f} (channel and spatial attention), "
        f"{atrous + context + both:+.2f} in sum; the module with all of them gains "
        f"{parts['yes,yes,yes']:+.2f}.",
    )


def _views() -> PaperNote:
    gains = _gains(TABLE_III)
    enhanced, decreased = gains["yes,no"], gains["no,yes"]
    return PaperNote(
        ("III",),
        f"The views gain more together ({gains['yes,yes']:+.2f}) than the sum of what each gains "
        f"alone ({enhanced:+.2f} and {decreased:+.2f}, {enhanced + decreased:+.2f} in sum), while "
        "the parts of the module in Tables IV and VI gain less together.",
    )


def _refinement() -> PaperNote:
    ours = next(row for row in TABLE_I if row.method == OURS)
    pseudo_labels = _printed(TABLE_III)["yes,yes"]
    return PaperNote(
        ("I", "II"),
        f"Pseudo-labels of {pseudo_labels:.2f} mIoU are said to train a segmentation network that "
        f"reaches {ours.val:.1f} on val, {ours.val - pseudo_labels:.1f} more. That implies a step "
        "that refines the labels (a dense CRF, AffinityNet or IRN); the paper mentions none.",
    )


def _citations() -> PaperNote:
    names = [f"{row.method} ({row.publication})" for row in TABLE_I if row.citation == 44]
    return PaperNote(
        ("I",),
        f"{' and '.join(names)} both cite reference [44], which is only the first of them; the "
        "reference list lacks the second.",
    )


def _person() -> PaperNote:
    ours = next(row for row in TABLE_II if row.method == OURS)
    others = [row for row in TABLE_II if row.method != OURS]
    behind = [max(r.ious[i] for r in others) - iou for i, iou in enumerate(ours.ious)]
    worst = behind.index(max(behind))
    best = max(others, key=lambda row: row.ious[worst])
    return PaperNote(
        ("II",),
        f'The paper\'s row "{OURS}" has the highest printed mean, but its printed IoU of '
        f"{TABLE_II_CLASSES[worst]} is {ours.ious[worst]:.1f} against {best.method}'s "
        f"{best.ious[worst]:.1f}: no other class is as far behind ({-behind[worst]:+.1f}).",
    )


def _all_white() -> PaperNote:
    views = ViewsConfig()
    alpha, beta = views.alpha_enhanced, views.beta_enhanced
    return PaperNote(
        EQ2,
        f"Eq. 2 (III-B) read literally, with alpha {alpha:g} and beta {beta:g} (IV-B) on pixels g "
        f"of 0 to 255, gives {beta:g} or more everywhere: clipped to 255, the enhanced view of any "
        "image is all white. views.reading has readings that keep a picture.",
    )


def _both_brighten() -> PaperNote:
    views = ViewsConfig()
    alpha, beta = views.alpha_decreased, views.beta_decreased
    least = alpha * 255 + beta - 255
    return PaperNote(
        EQ2,
        f"Both betas printed in IV-B are positive ({views.beta_enhanced:g} and {beta:g}), so that "
        "both views are brighter than the image. The one that is said to decrease contrast and "
        f"brightness, {alpha:g} g + {beta:g}, exceeds g by {least:g} (g = 255) to {beta:g} (g = 0) "
        "before clipping.",
    )


def _printed(table: Table) -> dict[str, float]:
    """Return the printed mIoU by the row's labels (and the column, if there are several)."""
    return {
        reference.removeprefix(f"{table.name}[").removesuffix("]"): cell.paper
        for reference, cell in table.cells()
        if cell.paper is not None
    }


def _gains(table: Table) -> Mapping[str, float]:
    """Return the printed mIoU minus that of the first row, by the row's labels."""
    printed = _printed(table)
    baseline = next(iter(printed.values()))
    return {labels: miou - baseline for labels, miou in printed.items()}
