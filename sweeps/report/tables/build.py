"""Reads a sweep's results from the store and compares them with the paper's."""

from collections.abc import Mapping

from sweeps.evidence import calibration
from sweeps.evidence.level import level_or_shape
from sweeps.evidence.verdict import NO_EVIDENCE, CellEvidence, table_verdicts
from sweeps.plan.run_command import run_command
from sweeps.plan.scale import scale_of, scored_classes
from sweeps.plan.sweep import Sweep
from sweeps.report.mlflow_pages import run_page, server_of
from sweeps.report.tables.answer import answer
from sweeps.report.tables.model import CellReport, Cells, Report, TableReport
from sweeps.report.tables.results import Measure, Results
from sweeps.store import records
from sweeps.store.store import Store, read_record
from sweeps.tables.table import Table
from wsss.overrides import ConfigError

DEFAULT_MARGIN = 0.5
"""Percentage points; a difference within this of the paper's counts as reproduced."""

Evidence = dict[str, CellEvidence]
"""By reference."""


def build_report(
    sweep: Sweep,
    store: Store,
    *,
    measure: Measure = Measure.fixed,
    margin: float = DEFAULT_MARGIN,
    mlflow_url: str | None = None,
    portable: bool = False,
) -> Report:
    """Read a sweep's results and compare them with the paper's. Missing and failed cells are shown.

    margin: how far, in percentage points, a measured difference may be from the paper's and still
    count as reproduced. mlflow_url: address of the MLflow server, for links to runs; default: where
    they were logged. portable: leave out date, links and the store's path, so that equal results
    give equal text. Raises ConfigError if no finished trial has the measure.
    """
    results = Results(store, sweep.plan.trials, measure)
    scored = [mious for mious in results.mious.values() if mious]
    if scored and not any(measure in mious for mious in scored):
        raise ConfigError(
            f"--measure {measure}: no finished trial has it, as all of its scored images are in "
            "one half; score more images, or give another --measure"
        )
    pages = {} if portable else _run_pages(store, mlflow_url)
    scale = scale_of(sweep, scored_classes(results.states))
    named_store = None if portable else store

    def command(num_seeds: int) -> str:
        return run_command(sweep, named_store, num_seeds=num_seeds)

    tables = tuple(
        TableReport(
            table=table,
            cells=_TableEvidence(
                table, sweep, results, margin, comparable=not scale.other_classes
            ).cells(pages),
            results=results,
            scale=scale,
            margin=margin,
            notes=(*table.notes, *_calibration_notes(table, sweep, store)),
            command=command,
        )
        for table in sweep.plan.tables
    )
    first, answers = command(sweep.num_seeds), tuple(map(answer, tables))
    return Report(sweep, named_store, results, margin, scale, first, tables, answers)


def _calibration_notes(table: Table, sweep: Sweep, store: Store) -> tuple[str, ...]:
    if table.name != calibration.TABLE:
        return ()
    verdict = calibration.read(store, sweep.name)
    return (calibration.sentence(verdict),) if verdict else ()


def _run_pages(store: Store, url: str | None) -> dict[str, str]:
    """Return the page of each trial's MLflow run, by run id, from what the tracker has saved."""
    pages: dict[str, str] = {}
    for name in store.sweep_names():
        path = store.sweep(name) / "mlflow.json"
        known = read_record(path, records.PAGES) or {"uri": "", "runs": {}}
        server, experiment = url or server_of(known["uri"]), str(known.get("experiment_id"))
        pages |= {run: run_page(server, experiment, id_) for run, id_ in known["runs"].items()}
    return pages


class _TableEvidence:
    """A table's trials with their mIoU by every measure, and the evidence they give."""

    def __init__(
        self, table: Table, sweep: Sweep, results: Results, margin: float, *, comparable: bool
    ) -> None:
        self.table, self.results, self.comparable = table, results, comparable
        self.labels, self.baselines = table.cell_labels(), table.baselines()
        self.trials = {name: sweep.plan.cell_trials[name] for name in self.baselines}
        self.run_ids = {
            name: {trial.config.rng_seed: trial.run_id for trial in trials}
            for name, trials in self.trials.items()
        }
        """Reference -> seed -> run id, of all planned trials."""
        self.mious = {
            measure: {name: results.values(ids, measure) for name, ids in self.run_ids.items()}
            for measure in Measure
        }
        """Measure -> reference -> seed -> mIoU, of finished trials."""
        self.evidence = {measure: self._compare(measure, margin) for measure in Measure}

    def _compare(self, measure: Measure, margin: float) -> Evidence:
        """Return evidence by cell. Cells that share their trials are tested once, for Holm's sake.

        None for a baseline, for cells that share its trials, and for those without a seed in
        common with it.
        """
        printed = {name: cell.paper for name, cell in self.table.cells()}
        first: dict[tuple[tuple[str, ...], ...], str] = {}
        of = {}
        for name in sorted(printed, key=lambda name: printed[name] is None):
            cell, base = (tuple(self.run_ids[n].values()) for n in (name, self.baselines[name]))
            if cell != base:
                of[name] = first.setdefault((cell, base), name)
        found = table_verdicts(
            printed if self.comparable else {},
            self.mious[measure],
            {name: self.baselines[name] for name in first.values()},
            margin,
        )
        return {name: found[same] for name, same in of.items() if found[same].differences.n}

    def cells(self, pages: Mapping[str, str]) -> Cells:
        """Return the table's cells, in its order. pages: MLflow page by run id."""
        return {name: self._cell(name, cell.paper, pages) for name, cell in self.table.cells()}

    def _cell(self, name: str, paper: float | None, pages: Mapping[str, str]) -> CellReport:
        results, baseline, own = self.results, self.baselines[name], self.run_ids[name]
        values = self.mious[results.measure]
        mine = values[name]
        image_difference, above_over_images = None, None
        if self.trials[name] != self.trials[baseline]:
            common = sorted(mine.keys() & values[baseline].keys())
            base_ids = [self.run_ids[baseline][seed] for seed in common]
            if against := results.against([own[seed] for seed in common], base_ids):
                image_difference, above_over_images = against
        evidence = {m: found.get(name, NO_EVIDENCE) for m, found in self.evidence.items()}
        others = {m.heading: found for m, found in evidence.items() if m is not Measure.fixed}
        return CellReport(
            reference=name,
            labels=self.labels[name],
            baseline=baseline,
            paper=paper,
            comparable=self.comparable,
            trials=self.trials[name],
            states={seed: results.states[run] for seed, run in own.items()},
            mious={measure: found[name] for measure, found in self.mious.items()},
            values=mine,
            evidence=evidence[results.measure],
            level=level_or_shape(evidence[Measure.fixed], others),
            image_interval=results.image_interval([own[seed] for seed in mine]),
            image_difference=image_difference,
            above_over_images=above_over_images,
            links=tuple((f"seed {seed}", pages[own[seed]]) for seed in mine if own[seed] in pages),
        )
