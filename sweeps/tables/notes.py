"""What does not add up in the printed paper, and what it leaves open, by the tables concerned.

Qin et al., TCSVT 2024. The tests work each figure out again from the printed numbers.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

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


NOTES = (
    PaperNote(
        ("II", "I"),
        'The 21 classes of the paper\'s row "Ours" average 67.005, not the printed 67.3; the other '
        "rows agree with their printed means within 0.08.",
    ),
    PaperNote(
        ("II",),
        'The paper\'s row "Ours" has the highest printed mean, but its printed IoU of person is '
        "66.0 against SEAM's 75.2: no other class is as far behind (-9.2).",
    ),
    # .17 is the lowest SD known from published repeats of CAM and DeepLab trainings; 16 independent
    # normal values span 3.532 SDs on average (Tippett 1925, Biometrika 17).
    PaperNote(
        ("V",),
        "The 16 printed cells span 0.08 mIoU (SD 0.024), and the paper mentions no repeats. "
        "Published repeats of such trainings vary by 0.17 SD or more: 16 equal settings, a seed "
        "each, would then span about 0.60, so one training per cell cannot resolve their order. "
        "Here each weight changes tenfold; the views whose losses they weigh are printed to gain "
        "+1.74 in Table III.",
    ),
    PaperNote(
        ("IV", "VI"),
        "Alone, the parts gain +0.68 (multi-scale atrous), +0.82 (context association) and +1.08 "
        "(channel and spatial attention), +2.58 in sum; the module with all of them gains +1.30.",
    ),
    PaperNote(
        ("III",),
        "The views gain more together (+1.74) than the sum of what each gains alone (+0.68 and "
        "+0.42, +1.10 in sum), while the parts of the module in Tables IV and VI gain less "
        "together.",
    ),
    PaperNote(
        EQ2,
        "Eq. 2 (III-B) read literally, with alpha 1.5 and beta 300 (IV-B) on pixels g of 0 to 255, "
        "gives 300 or more everywhere: clipped to 255, the enhanced view of any image is all "
        "white. views.reading has readings that keep a picture.",
    ),
    PaperNote(
        EQ2,
        "Both betas printed in IV-B are positive (300 and 150), so that both views are brighter "
        "than the image. The one that is said to decrease contrast and brightness, 0.8 g + 150, "
        "exceeds g by 99 (g = 255) to 150 (g = 0) before clipping.",
    ),
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
        "The paper does not name the code that scored its pseudo-labels. Until September 2021, "
        "Puzzle-CAM's public evaluate.py started one of eight shards, so that copies of that time "
        "score every eighth image: 183 of train's 1,464. A number of that kind is not comparable "
        "with one over the whole split.",
    ),
    PaperNote(
        ("I", "II"),
        "Pseudo-labels of 50.86 mIoU are said to train a segmentation network that reaches 67.3 on "
        "val, 16.4 more. That implies a step that refines the labels (a dense CRF, AffinityNet or "
        "IRN); the paper mentions none.",
    ),
    PaperNote(
        ("I",),
        "Su et al. (ICCV21) and Zhang et al. (ACMMM21) both cite reference [44], which is only the "
        "first of them; the reference list lacks the second.",
    ),
)


def notes_on(tables: Collection[str]) -> tuple[PaperNote, ...]:
    """Return the notes on these tables; each names only the ones asked for."""
    found = (
        replace(note, tables=tuple(name for name in note.tables if name in tables))
        for note in NOTES
    )
    return tuple(note for note in found if note.tables)
