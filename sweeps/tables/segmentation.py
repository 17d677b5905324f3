"""Tables I and II of the paper as data, with every method's row.

Qin et al., TCSVT 2024, Sections IV-C and IV-D. Copied from a text version of the paper. Bold type,
which marks the highest number of a column there, supports the digits. So do two checks, except in
the row "Ours": the printed means of Table II agree with its IoUs, and the methods in both tables
have the same mIoU in both.
"""

from dataclasses import dataclass

OURS = "Ours"
"""The row of the paper's own method in Tables I and II."""


@dataclass(frozen=True)
class SegmentationRow:
    """One line of Table I; val and test are mIoU in percent. The paper prints no dash."""

    method: str
    publication: str
    """Where and when, as printed, e.g. "CVPR18"; empty for the paper's own row."""
    backbone: str
    val: float
    test: float
    saliency: bool = False
    """The printed tick (True) or cross: supervised by saliency maps besides image-level labels."""


@dataclass(frozen=True)
class ClassRow:
    """One line of Table II: 21 IoUs in percent on val, background first, and the printed mean."""

    method: str
    ious: tuple[float, ...]
    printed_mean: float


TABLE_I = (
    SegmentationRow("AffinityNet", "CVPR18", "ResNet38", 61.7, 63.7),
    SegmentationRow("DSRG", "CVPR18", "ResNet101", 61.4, 63.2, saliency=True),
    SegmentationRow("SeeNet", "NeurIPS18", "ResNet38", 63.1, 62.8, saliency=True),
    SegmentationRow("IRNet", "CVPR19", "ResNet50", 63.5, 64.8),
    SegmentationRow("SSDD", "ICCV19", "ResNet38", 64.9, 65.5),
    SegmentationRow("CIAN", "AAAI20", "ResNet101", 64.3, 65.3, saliency=True),
    SegmentationRow("Zhang et al.", "ECCV20", "ResNet50", 66.6, 66.7, saliency=True),
    SegmentationRow("Sun et al.", "ECCV20", "ResNet101", 66.2, 66.9, saliency=True),
    SegmentationRow("SEAM", "CVPR20", "ResNet38", 64.5, 65.7),
    SegmentationRow("Chen et al.", "ECCV20", "ResNet50", 65.7, 66.6),
    SegmentationRow("Chang et al.", "CVPR20", "ResNet38", 66.1, 65.9),
    SegmentationRow("Wang et al.", "IJCV20", "ResNet38", 64.3, 65.4),
    SegmentationRow("Araslanov et al.", "CVPR20", "ResNet38", 62.7, 64.3),
    SegmentationRow("ICD", "CVPR20", "ResNet101", 64.1, 64.3),
    SegmentationRow("CONTA", "NeurIPS20", "ResNet38", 66.1, 66.7),
    SegmentationRow("OAA++", "TPAMI21", "ResNet101", 64.9, 66.3),
    SegmentationRow("OAA+++", "TPAMI21", "VGGNet", 63.7, 63.2),
    SegmentationRow("Su et al.", "ICCV21", "ResNet38", 66.1, 66.8),
    SegmentationRow("Zhang et al.", "ACMMM21", "ResNet38", 63.9, 64.8),
    SegmentationRow("Ru et al.", "CVPR22", "MiT-B1", 66.0, 66.3),
    SegmentationRow(OURS, "", "ResNet50", 67.3, 67.5),
)

TABLE_II_CLASSES = (
    *("bkg", "aero", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("table", "dog", "horse", "mbk", "person", "plant", "sheep", "sofa", "train", "tv"),
)
"""Column heads as printed, in VOC's label order."""


def _row(method: str, ious: str, printed_mean: float) -> ClassRow:
    """Return a line of Table II; ious: as printed, separated by spaces."""
    return ClassRow(method, tuple(map(float, ious.split())), printed_mean)


TABLE_II = (
    _row(
        "MIL+seg",
        "79.6 50.2 21.6 40.9 34.9 40.5 45.9 51.5 60.6 12.6 51.2 11.6 56.8 52.9 44.8 42.7 "
        "31.2 55.4 21.5 38.8 36.9",
        42.0,
    ),
    _row(
        "SEC",
        "82.4 62.9 26.4 61.6 27.6 38.1 66.6 62.7 75.2 22.1 53.5 28.3 65.8 57.8 62.3 52.5 "
        "32.5 62.6 32.1 45.4 45.3",
        50.7,
    ),
    _row(
        "AdvErasing",
        "83.4 71.1 30.5 72.9 41.6 55.9 63.1 60.2 74.0 18.0 66.5 32.4 71.7 56.3 64.8 52.4 "
        "37.4 69.1 31.4 58.9 43.9",
        55.0,
    ),
    _row(
        "AffinityNet",
        "88.2 68.2 30.6 81.1 49.6 61.0 77.8 66.1 75.1 29.0 66.0 40.2 80.4 62.0 70.4 73.7 "
        "42.5 70.0 42.6 68.1 51.6",
        61.7,
    ),
    _row(
        "SEAM",
        "88.8 68.5 33.3 85.7 40.4 67.3 78.9 76.3 81.9 29.1 75.5 48.1 79.9 73.8 71.4 75.2 "
        "48.9 79.8 40.9 58.2 53.0",
        64.5,
    ),
    _row(
        OURS,
        "89.0 73.4 35.9 78.9 52.9 67.3 82.2 72.4 86.2 30.3 78.4 40.2 80.5 79.1 80.8 66.0 "
        "57.7 81.3 57.6 62.0 55.0",
        67.3,
    ),
)
