"""What the report of a headline says, before it is written in any format. All mIoU in percent."""

from dataclasses import dataclass

from sweeps.plan.headline import Headline
from sweeps.report.model import Picture
from sweeps.tables.notes import PaperNote

PRINTED = "printed by the paper"
MEASURED = "measured here"


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
    ious: dict[str, float | None]
    """By label, background first; None for a label that does not occur."""
    pixel_accuracy: float | None
    num_images: int
    """Images behind the score."""
    ids: tuple[tuple[str, str], ...]
    """(stage, id) from the CAMs to the predictions."""
    tar: str | None
    """The exported archive, relative to the store."""
    tar_split: str | None
    tar_miou: float | None
    """mIoU of the exported split, where it has masks."""


@dataclass(frozen=True)
class LabelRow:
    """The labels of the training images at one stage; all rows rest on the same CAMs."""

    name: str
    miou: float | None
    """None for labels that are not scored, since they leave pixels open."""
    pixel_accuracy: float | None
    num_images: int
    gain: float | None
    """Over the CAMs as they are, in points."""
    saw: str


@dataclass(frozen=True)
class HeadlineReport:
    """Everything that `sweeps headline` writes."""

    headline: Headline
    created: str
    warning: str | None
    """The mark of numbers that are not at the paper's scale."""
    findings: tuple[str, ...]
    """What came out, in sentences."""
    networks: tuple[NetworkRow, ...]
    labels: tuple[LabelRow, ...]
    labels_paper: float | None
    """Pseudo-label mIoU which the paper prints for the cell."""
    label_scale: str
    """Data, images and network behind the labels."""
    network_scale: str
    """Data, images and network behind Tables I and II."""
    same_classes: bool
    """Whether the data has the classes of the paper's Table II."""
    class_names: tuple[str, ...]
    """Background first."""
    paper_notes: tuple[PaperNote, ...]
    gallery: Picture | None
    provenance: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """The heading."""
        return f"Tables I and II: from {self.headline.cell} to segmentation"

    @property
    def split(self) -> str:
        """The split that the networks are scored on."""
        return self.headline.chains[0].eval_split
