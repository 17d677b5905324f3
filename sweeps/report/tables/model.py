"""What a sweep came to, table by table, weighed against the paper. All mIoU in percent.

Image noise (another set of images, the networks as they are) and seed noise (another training, the
images as they are) have fields of their own and are never added up.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from sweeps.evidence.level import LevelOrShape
from sweeps.evidence.verdict import CellEvidence
from sweeps.plan.scale import Scale
from sweeps.plan.sweep import Sweep
from sweeps.report.document import Picture, Strip
from sweeps.tables.notes import PaperNote
from sweeps.tables.table import Table
from wsss.config import LabelsConfig
from wsss.training.learning import DeadMaps


class Measure(StrEnum):
    """Which mIoU a report compares; each says what chose its threshold."""

    fixed = "fixed"
    held_out = "held-out"
    best = "best"
    auc = "auc"

    @property
    def heading(self) -> str:
        """Its name in the head of a column."""
        return "AUC" if self is Measure.auc else self.value

    def describe(self, labels: LabelsConfig) -> str:
        """Return what the figure is, and which pixel ground truth its choice saw."""
        low, high = labels.threshold_range
        return {
            "fixed": "pseudo-label mIoU in % at the fixed background score "
            f"{labels.background_score:g}, which saw no pixel ground truth",
            "held-out": "pseudo-label mIoU in % at a threshold chosen on the other half of the "
            "scored images, whose pixel ground truth it saw",
            "best": "pseudo-label mIoU in % at each training's best threshold, whose choice saw "
            "the pixel ground truth that scores it",
            "auc": f"mean pseudo-label mIoU in % over all thresholds from {low:g} to {high:g} "
            "(AUC, area under the threshold curve), of which none is chosen",
        }[self.value]


@dataclass(frozen=True)
class CellReport:
    """One cell of a table."""

    reference: str
    labels: tuple[str, ...]
    """The row's labels, and the column's if there are several."""
    baseline: str
    """Reference of the cell which it is compared with; a baseline's own is itself."""
    paper: float | None
    comparable: bool
    """Whether the data allows to hold the paper's number against the measured one."""
    run_ids: dict[int, str]
    """Seed -> run id, of all planned trials."""
    values: dict[int, float]
    """Seed -> mIoU, of finished trials."""
    mious: dict[Measure, dict[int, float]]
    """The same under every measure; a measure which a run lacks has no seed of it."""
    level: LevelOrShape | None
    """What its difference to its baseline is one of; None where `evidence` is None."""
    mean: float | None
    sd: float | None
    """Sample SD over seeds: seed noise. None below two seeds."""
    seed_interval: tuple[float, float] | None
    """95 % t interval of the mean, under other seeds."""
    image_interval: tuple[float, float] | None
    """95 % bootstrap interval of the mean, under other images."""
    evidence: CellEvidence | None
    """Against its baseline; None for a baseline itself and for what has no common seed."""
    image_difference: tuple[float, float] | None
    """95 % bootstrap interval of the difference to its baseline, on the same images."""
    better_over_seeds: float | None
    """Share of resamples of the common seeds in which it is above its baseline."""
    better_over_images: float | None
    """The same of resamples of images."""
    also: tuple[str, ...]
    """Other cells that are the same trials."""
    failures: tuple[str, ...]
    dead: dict[int, DeadMaps]
    """Seed -> that its training ended with dead maps; only of those that did."""
    seconds: float
    """Training and inference time of its finished trials."""
    links: tuple[tuple[str, str], ...]
    """(seed, address) of the MLflow runs."""

    @property
    def is_baseline(self) -> bool:
        """Whether it is what other cells are compared with."""
        return self.reference == self.baseline

    @property
    def num_planned(self) -> int:
        """Trials that the plan has for this cell."""
        return len(self.run_ids)

    @property
    def to_paper(self) -> float | None:
        """Measured mean minus printed number."""
        if self.mean is None or self.paper is None or not self.comparable:
            return None
        return self.mean - self.paper


@dataclass(frozen=True)
class ClassComparison:
    """IoU per class of a table's best cell and of its baseline, over their common seeds, percent.

    L: labels that occur.
    """

    best: str
    baseline: str
    num_seeds: int
    names: tuple[str, ...]
    """[L], background first."""
    absent: tuple[str, ...]
    """Classes in no scored image; they have no IoU."""
    ours: NDArray[np.float64]
    """[L] of the best cell."""
    theirs: NDArray[np.float64]
    """[L] of the baseline."""
    low: NDArray[np.float64]
    """[L] lower ends of the 95 % intervals of the difference, over images."""
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Gallery:
    """Pictures of some cells on the same images, and what is left out."""

    pictures: tuple[Picture, ...]
    left_out: str


@dataclass(frozen=True)
class TableReport:
    """One table with its evidence."""

    table: Table
    cells: dict[str, CellReport]
    """By reference, in the table's order."""
    answer: Strip
    """Whether the table holds."""
    scale: Scale
    findings: tuple[str, ...]
    """What the statistics say about the table as a whole."""
    notes: tuple[str, ...]
    figures: tuple[Picture, ...]
    classes: ClassComparison | None
    """The best cell against its baseline."""
    gallery: Gallery | None


@dataclass(frozen=True)
class Report:
    """Everything that `sweeps report` writes."""

    sweep: Sweep
    measure: Measure
    margin: float
    scale: Scale
    command: str
    """What runs the sweep, or goes on with it."""
    about: tuple[tuple[str, str], ...]
    """The code, the device and the paper."""
    tables: tuple[TableReport, ...]
    paper_notes: tuple[PaperNote, ...]
    readings: tuple[tuple[str, str, str], ...]
    """(setting, value, what is open) of each open point."""
    changes: tuple[tuple[str, str, str], ...]
    """(setting, paper preset's value, value here)."""
    provenance: tuple[tuple[str, str], ...]
    failures: tuple[tuple[str, str], ...]
    """(trial, kind and message)."""
    failure_meanings: tuple[tuple[str, str], ...]
    """(kind, what it means) of the kinds among the failures."""
    warnings: tuple[tuple[str, str], ...]
    """(trial, words) of trainings that have not left the label prior, or ended with dead maps."""
    costs: tuple[tuple[str, str], ...]

    @property
    def title(self) -> str:
        """The heading."""
        names = self.sweep.table_names
        cells = [cell for table in self.tables for cell in table.cells.values()]
        if not any(cell.comparable and cell.paper is not None for cell in cells):
            question = "does any cell differ?"
        else:
            question = "does it hold?" if len(names) == 1 else "do they hold?"
        return f"{'Table' if len(names) == 1 else 'Tables'} {', '.join(names)}: {question}"
