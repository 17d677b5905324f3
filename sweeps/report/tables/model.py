"""A sweep's results, table by table, compared with the paper's. All mIoU in percent.

Image noise (other images, the same networks) and seed noise (other trainings, the same images) have
separate fields and are never added up.
"""

from dataclasses import dataclass
from enum import StrEnum

from sweeps.evidence.level import LevelOrShape
from sweeps.evidence.verdict import CellEvidence, Verdict
from sweeps.plan.scale import Scale
from sweeps.plan.sweep import Sweep
from sweeps.report.document import Block, Facts, Picture, Strip
from sweeps.report.words import fixed_score
from sweeps.tables.table import Table
from wsss.training.diagnosis.learning import DeadMaps


class Measure(StrEnum):
    """Which mIoU a report compares: they differ in how the background threshold is chosen."""

    fixed = "fixed"
    held_out = "held-out"
    best = "best"
    auc = "auc"

    @property
    def heading(self) -> str:
        """Its name as a column heading."""
        return "AUC" if self is Measure.auc else self.value

    def describe(self, sweep: Sweep) -> str:
        """Return what the mIoU is, and whether its threshold was chosen with pixel ground truth."""
        low, high = sweep.base.labels.threshold_range
        return {
            "fixed": "pseudo-label mIoU in % at the fixed background score "
            f"{fixed_score(sweep)}, chosen without pixel ground truth",
            "held-out": "pseudo-label mIoU in % at a threshold chosen with the pixel ground truth "
            "of the other half of the scored images",
            "best": "pseudo-label mIoU in % at each training's best threshold, chosen with the "
            "pixel ground truth that scores it",
            "auc": f"mean pseudo-label mIoU in % over all thresholds from {low:g} to {high:g} "
            "(AUC, area under the threshold curve); no threshold is chosen",
        }[self.value]


@dataclass(frozen=True)
class CellReport:
    """One cell of a table."""

    reference: str
    labels: tuple[str, ...]
    """The row's labels, and the column's if there are several."""
    baseline: str
    """Reference of the cell it is compared with; a baseline's own is itself."""
    paper: float | None
    comparable: bool
    """Whether the data has VOC's classes, so that the paper's number can be compared."""
    run_ids: dict[int, str]
    """Seed -> run id, of all planned trials."""
    values: dict[int, float]
    """Seed -> mIoU, of finished trials."""
    mious: dict[Measure, dict[int, float]]
    """The same by every measure; without the seeds whose runs lack the measure."""
    level: LevelOrShape | None
    """Kind of its difference to its baseline; None where `evidence` is None."""
    mean: float | None
    sd: float | None
    """Sample SD over seeds: seed noise. None below two seeds."""
    seed_interval: tuple[float, float] | None
    """95 % t interval of the mean over seeds."""
    image_interval: tuple[float, float] | None
    """95 % bootstrap interval of the mean over images."""
    evidence: CellEvidence | None
    """Against its baseline; None for the baseline's own trials and without a common seed."""
    image_difference: tuple[float, float] | None
    """95 % bootstrap interval of the difference to its baseline, on the same images."""
    better_over_seeds: float | None
    """Share of resamples of the common seeds in which it is above its baseline."""
    better_over_images: float | None
    """The same for resamples of images."""
    also: tuple[str, ...]
    """Other cells with the same trials."""
    failures: tuple[str, ...]
    dead: dict[int, DeadMaps]
    """Seed -> dead maps at the end of its training, if any."""
    seconds: float
    """Training and inference time of its finished trials."""
    links: tuple[tuple[str, str], ...]
    """(seed, address) of the MLflow runs."""

    @property
    def is_baseline(self) -> bool:
        """Whether other cells are compared with it."""
        return self.reference == self.baseline

    @property
    def num_planned(self) -> int:
        """Number of planned trials."""
        return len(self.run_ids)

    @property
    def printed(self) -> float | None:
        """The paper's number if it can be compared with the measured one."""
        return self.paper if self.comparable else None

    @property
    def to_paper(self) -> float | None:
        """Measured mean minus printed number."""
        return None if self.mean is None or self.printed is None else self.mean - self.printed

    @property
    def verdict(self) -> Verdict | None:
        """On its difference to its baseline; None without the paper's difference."""
        return self.evidence.verdict if self.evidence else None


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
    classes: tuple[Block, ...]
    """The best cell against its baseline; empty if they cannot be compared."""
    gallery: tuple[Block, ...]
    """Pictures of some cells on the same images."""
    figures: tuple[Picture, ...]


@dataclass(frozen=True)
class Report:
    """Everything that `sweeps report` writes."""

    sweep: Sweep
    measure: Measure
    margin: float
    scale: Scale
    command: str
    """Runs or resumes the sweep."""
    about: tuple[tuple[str, str], ...]
    """The code, the device and the paper."""
    tables: tuple[TableReport, ...]
    closing: tuple[tuple[str, Facts], ...]
    """(heading, facts): failures, warnings, costs, and what the results were made with."""

    @property
    def title(self) -> str:
        """The report's title."""
        names = self.sweep.table_names
        cells = [cell for table in self.tables for cell in table.cells.values()]
        if all(cell.printed is None for cell in cells):
            question = "does any cell differ?"
        else:
            question = "does it hold?" if len(names) == 1 else "do they hold?"
        return f"{'Table' if len(names) == 1 else 'Tables'} {', '.join(names)}: {question}"
