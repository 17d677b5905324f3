"""A sweep's results, table by table, compared with the paper's. All mIoU in percent.

Image noise (other images, the same networks) and seed noise (other trainings, the same images) have
separate fields and are never added up.
"""

from dataclasses import dataclass
from functools import cached_property

from sweeps.evidence import calibration
from sweeps.evidence.common_seeds import CommonSeeds
from sweeps.evidence.level import LevelOrShape, level_or_shape
from sweeps.evidence.seeds import Interval, seed_interval
from sweeps.evidence.verdict import NO_EVIDENCE, CellEvidence, Verdict, table_verdicts
from sweeps.plan.run_command import run_command
from sweeps.plan.scale import Scale, scale_of, scored_classes
from sweeps.plan.states import TrialState
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.mlflow_pages import PAGES_FILE
from sweeps.report.tables.results import Measure, Results
from sweeps.report.words import mean_sd
from sweeps.store import records
from sweeps.store.store import Store, read_record
from sweeps.tables.table import Table
from wsss.overrides import ConfigError
from wsss.training.diagnosis.learning import DeadMaps

DEFAULT_MARGIN = 0.5
"""Percentage points; a difference within this of the paper's counts as reproduced."""


def build_report(
    sweep: Sweep,
    store: Store,
    *,
    measure: Measure = Measure.fixed,
    margin: float = DEFAULT_MARGIN,
    portable: bool = False,
) -> "Report":
    """Read a sweep's results, to be compared with the paper's. Missing and failed cells are shown.

    margin: how far, in percentage points, a measured difference may be from the paper's and still
    count as reproduced. portable: leave out date, links and the store's path, so that equal results
    give equal text. Raises ConfigError if no finished trial has the measure.
    """
    results = Results(store, sweep.plan.trials, measure)
    scored = [mious for mious in results.mious.values() if mious]
    if scored and not any(measure in mious for mious in scored):
        raise ConfigError(
            f"--measure {measure}: no finished trial has it, as all of its scored images are in "
            "one half; score more images, or give another --measure"
        )
    return Report(sweep, None if portable else store, results, margin)


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that `sweeps report` writes."""

    sweep: Sweep
    store: Store | None
    """None: leave out date, store and links, so that equal results give equal text."""
    results: Results
    margin: float

    @cached_property
    def scale(self) -> Scale:
        """How far the runs are from the paper's."""
        return scale_of(self.sweep, scored_classes(self.results.states))

    @cached_property
    def pages(self) -> dict[str, str]:
        """Run id -> page of the run in MLflow, as far as they are known."""
        file = self.results.store.sweep(self.sweep.name) / PAGES_FILE
        return (self.store and read_record(file, records.PAGES)) or {}

    @cached_property
    def tables(self) -> tuple["TableReport", ...]:
        """The sweep's tables with their evidence."""
        return tuple(TableReport(self, table) for table in self.sweep.plan.tables)

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

    def command(self, num_seeds: int | None = None) -> str:
        """Return the command that runs or resumes the sweep, by default with its seeds."""
        return run_command(self.sweep, self.store, num_seeds=num_seeds)


@dataclass(frozen=True, eq=False)
class TableReport:
    """One table with its evidence."""

    report: Report
    table: Table

    @cached_property
    def cells(self) -> "Cells":
        """All cells, in the table's order."""
        labels, baselines = self.table.cell_labels(), self.table.baselines()
        trials = self.report.sweep.plan.cell_trials
        return {
            name: CellReport(self, name, labels[name], baselines[name], cell.paper, trials[name])
            for name, cell in self.table.cells()
        }

    @cached_property
    def distinct(self) -> "Cells":
        """The cells without those that share their trials with an earlier one."""
        first = dict[tuple[str, ...], str]()
        for reference, cell in self.cells.items():
            first.setdefault(tuple(cell.run_ids.values()), reference)
        return {reference: self.cells[reference] for reference in first.values()}

    @cached_property
    def evidence(self) -> dict[Measure, dict[str, CellEvidence]]:
        """Measure -> reference -> how it compares with its baseline.

        Cells that share their trials are tested once, for Holm's sake. Without baselines, cells
        that share their trials, and those without a seed in common with them.
        """
        first: dict[tuple[tuple[str, ...], ...], str] = {}
        of = {}
        for name, cell in sorted(self.cells.items(), key=lambda each: each[1].paper is None):
            pair = cell, self.cells[cell.baseline]
            mine, base = (tuple(each.run_ids.values()) for each in pair)
            if mine != base:
                of[name] = first.setdefault((mine, base), name)
        found = {}
        for measure in Measure:
            judged = table_verdicts(
                {name: cell.printed for name, cell in self.cells.items()},
                {name: cell.mious[measure] for name, cell in self.cells.items()},
                {name: self.cells[name].baseline for name in first.values()},
                self.report.margin,
            )
            with_seeds = {name: judged[same] for name, same in of.items()}
            found[measure] = {name: e for name, e in with_seeds.items() if e.differences.n}
        return found

    @cached_property
    def common(self) -> CommonSeeds | None:
        """The seeds that all cells have.

        None if there is none, or if the table gives some cells fewer seeds by design.
        """
        if any(cell.seeds is not None for _, cell in self.table.cells()):
            return None
        return CommonSeeds.of(self.table, {name: c.values for name, c in self.distinct.items()})

    @property
    def notes(self) -> tuple[str, ...]:
        """The table's notes, and whether its sweep calibrates."""
        report, verdict = self.report, None
        if self.table.name == calibration.TABLE:
            verdict = calibration.read(report.results.store, report.sweep.name)
        return (*self.table.notes, *([calibration.sentence(verdict)] if verdict else []))

    def best_rival(self) -> "CellReport | None":
        """Return the best measured cell with other trials than its baseline; None without one."""
        rivals = [c for c in self.cells.values() if c.values and not c.same_as_baseline]
        return max(rivals, key=lambda cell: cell.mean or 0.0, default=None)


@dataclass(frozen=True, eq=False)
class CellReport:
    """One cell of a table."""

    table: TableReport
    reference: str
    labels: tuple[str, ...]
    """The row's labels, and the column's if there are several."""
    baseline: str
    """Reference of the cell it is compared with; a baseline's own is itself."""
    paper: float | None
    trials: tuple[Trial, ...]
    """All planned ones."""

    @cached_property
    def run_ids(self) -> dict[int, str]:
        """Seed -> run id, of all planned trials."""
        return {trial.config.rng_seed: trial.run_id for trial in self.trials}

    @property
    def results(self) -> Results:
        """Those of the sweep."""
        return self.table.report.results

    @property
    def states(self) -> dict[int, TrialState]:
        """Seed -> state, of all planned trials."""
        return {seed: self.results.states[run] for seed, run in self.run_ids.items()}

    @cached_property
    def mious(self) -> dict[Measure, dict[int, float]]:
        """Seed -> mIoU, of finished trials, by every measure that they have."""
        return {measure: self.results.values(self.run_ids, measure) for measure in Measure}

    @property
    def values(self) -> dict[int, float]:
        """The same by the report's measure."""
        return self.mious[self.results.measure]

    @property
    def scores(self) -> list[float]:
        """The same without seeds."""
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
    def image_interval(self) -> Interval | None:
        """95 % bootstrap interval of the mean over images."""
        return self.results.image_interval([self.run_ids[seed] for seed in self.values])

    def evidence_by(self, measure: Measure) -> CellEvidence:
        """Return how it compares with its baseline; NO_EVIDENCE for the baseline's own trials."""
        return self.table.evidence[measure].get(self.reference, NO_EVIDENCE)

    @property
    def evidence(self) -> CellEvidence:
        """The same by the report's measure."""
        return self.evidence_by(self.results.measure)

    @property
    def verdict(self) -> Verdict | None:
        """On its difference to its baseline; None without the paper's difference."""
        return self.evidence.verdict

    @cached_property
    def level(self) -> LevelOrShape:
        """Kind of its difference to its baseline."""
        others = {m.heading: self.evidence_by(m) for m in Measure if m is not Measure.fixed}
        return level_or_shape(self.evidence_by(Measure.fixed), others)

    @cached_property
    def over_images(self) -> tuple[Interval | None, float | None]:
        """Its difference to its baseline on the same images.

        Returns the 95 % bootstrap interval, and the probability that the difference is above 0.
        """
        base = self.table.cells[self.baseline]
        common = sorted(self.values.keys() & base.values.keys())
        pair = ([each.run_ids[seed] for seed in common] for each in (self, base))
        found = None if self.trials == base.trials else self.results.against(*pair)
        return found or (None, None)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """Words for each seed that has a page in MLflow, and its address."""
        pages = self.table.report.pages
        return tuple((f"seed {s}", pages[run]) for s, run in self.run_ids.items() if run in pages)

    @property
    def printed(self) -> float | None:
        """The paper's number if the data has VOC's classes, so that it can be compared."""
        return None if self.table.report.scale.other_classes else self.paper

    @property
    def to_paper(self) -> float | None:
        """Measured mean minus printed number."""
        return None if self.mean is None or self.printed is None else self.mean - self.printed

    @property
    def is_baseline(self) -> bool:
        """Whether other cells are compared with it."""
        return self.reference == self.baseline

    @property
    def same_trials(self) -> tuple[str, ...]:
        """Names of all cells with some of its trials, its own among them."""
        return tuple(sorted({self.reference, *(c for trial in self.trials for c in trial.cells)}))

    @property
    def same_as_baseline(self) -> bool:
        """Whether its trials are those of its baseline."""
        return self.baseline in self.same_trials

    @property
    def eval_split(self) -> str:
        """The split that its trials score, which a study may vary."""
        return self.trials[0].config.data.eval_split

    @property
    def seconds(self) -> float:
        """Training and inference time of its finished trials."""
        return sum(state.seconds for state in self.states.values())

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
