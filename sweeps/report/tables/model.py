"""A sweep's results, table by table, compared with the paper's. All mIoU in percent.

Image noise (other images, the same networks) and seed noise (other trainings, the same images) have
separate fields and are never added up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from sweeps.evidence.common_seeds import CommonSeeds
from sweeps.evidence.level import LevelOrShape
from sweeps.evidence.seeds import Interval, seed_interval
from sweeps.evidence.verdict import CellEvidence, Verdict
from sweeps.plan.scale import Scale
from sweeps.plan.states import TrialState
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.document import Strip
from sweeps.report.tables.results import Measure, Results
from sweeps.report.words import mean_sd
from sweeps.store.store import Store
from sweeps.tables.table import Table
from wsss.training.diagnosis.learning import DeadMaps


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
    trials: tuple[Trial, ...]
    """All planned ones."""
    states: dict[int, TrialState]
    """Seed -> state, of the same."""
    mious: dict[Measure, dict[int, float]]
    """Seed -> mIoU, of finished trials, by every measure that they have."""
    values: dict[int, float]
    """The same by the report's measure."""
    evidence: CellEvidence
    """Against its baseline; NO_EVIDENCE for the baseline's own trials."""
    level: LevelOrShape
    """Kind of its difference to its baseline."""
    image_interval: Interval | None
    """95 % bootstrap interval of the mean over images."""
    image_difference: Interval | None
    """95 % bootstrap interval of the difference to its baseline, on the same images."""
    above_over_images: float | None
    """Probability that this difference is above 0."""
    links: tuple[tuple[str, str], ...]
    """(seed, address) of the MLflow runs."""

    @cached_property
    def run_ids(self) -> dict[int, str]:
        """Seed -> run id, of all planned trials."""
        return {trial.config.rng_seed: trial.run_id for trial in self.trials}

    @property
    def is_baseline(self) -> bool:
        """Whether other cells are compared with it."""
        return self.reference == self.baseline

    @property
    def eval_split(self) -> str:
        """The split that its trials score, which a study may vary."""
        return self.trials[0].config.data.eval_split

    @property
    def same_trials(self) -> tuple[str, ...]:
        """Names of all cells with some of its trials, its own among them."""
        return tuple(sorted({self.reference, *(c for trial in self.trials for c in trial.cells)}))

    @property
    def same_as_baseline(self) -> bool:
        """Whether its trials are those of its baseline."""
        return self.baseline in self.same_trials

    @property
    def scores(self) -> list[float]:
        """mIoU of the finished trials."""
        return list(self.values.values())

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return mean_sd(self.scores)[0]

    @property
    def seed_interval(self) -> Interval | None:
        """95 % t interval of the mean over seeds."""
        return seed_interval(self.scores)

    @property
    def printed(self) -> float | None:
        """The paper's number if it can be compared with the measured one."""
        return self.paper if self.comparable else None

    @property
    def to_paper(self) -> float | None:
        """Measured mean minus printed number."""
        return None if self.mean is None or self.printed is None else self.mean - self.printed

    @property
    def seconds(self) -> float:
        """Training and inference time of its finished trials."""
        return sum(state.seconds for state in self.states.values())

    @property
    def verdict(self) -> Verdict | None:
        """On its difference to its baseline; None without the paper's difference."""
        return self.evidence.verdict

    @property
    def failures(self) -> tuple[str, ...]:
        """`seed 0: kind: message` of each failed trial."""
        return tuple(f"seed {seed}: {s.failure}" for seed, s in self.states.items() if s.failure)

    @property
    def dead(self) -> dict[int, DeadMaps]:
        """Seed -> dead maps at the end of its training, if any."""
        found = {seed: state.dead for seed, state in self.states.items()}
        return {seed: dead for seed, dead in found.items() if isinstance(dead, DeadMaps)}


Cells = dict[str, CellReport]
"""By reference, in the table's order."""


@dataclass(frozen=True)
class TableReport:
    """One table with its evidence."""

    table: Table
    cells: Cells
    results: Results
    scale: Scale
    margin: float
    notes: tuple[str, ...]
    command: Callable[[int], str]
    """Number of seeds -> the command that runs the sweep with them."""

    @cached_property
    def distinct(self) -> Cells:
        """The cells without those that share their trials with an earlier one."""
        first = dict[tuple[str, ...], str]()
        for reference, cell in self.cells.items():
            first.setdefault(tuple(cell.run_ids.values()), reference)
        return {reference: self.cells[reference] for reference in first.values()}

    @cached_property
    def common(self) -> CommonSeeds | None:
        """The seeds that all cells have.

        None if there is none, or if the table gives some cells fewer seeds by design.
        """
        if any(cell.seeds is not None for _, cell in self.table.cells()):
            return None
        return CommonSeeds.of(self.table, {name: c.values for name, c in self.distinct.items()})

    def best_rival(self) -> CellReport | None:
        """Return the best measured cell with other trials than its baseline; None without one."""
        rivals = [c for c in self.cells.values() if c.values and not c.same_as_baseline]
        return max(rivals, key=lambda cell: cell.mean or 0.0, default=None)


@dataclass(frozen=True)
class Report:
    """Everything that `sweeps report` writes."""

    sweep: Sweep
    store: Store | None
    """None: leave out date and store, so that equal results give equal text."""
    results: Results
    margin: float
    scale: Scale
    command: str
    """Runs or resumes the sweep."""
    tables: tuple[TableReport, ...]
    answers: tuple[Strip, ...]
    """Whether each of them holds."""

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
