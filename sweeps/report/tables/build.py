"""Reads a sweep's results from the store and compares them with the paper's."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sweeps.evidence import calibration
from sweeps.evidence.images import argmax_stability
from sweeps.evidence.level import LevelOrShape, level_or_shape
from sweeps.evidence.seeds import seed_interval
from sweeps.evidence.verdict import CellEvidence, table_verdicts
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.run_command import run_command
from sweeps.plan.scale import Scale, scale_of, scored_classes
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan
from sweeps.report.document import Facts
from sweeps.report.live.cost_lines import format_seconds
from sweeps.report.mlflow_pages import run_page, server_of
from sweeps.report.tables.answer import answer
from sweeps.report.tables.findings import findings
from sweeps.report.tables.model import CellReport, Measure, Report, TableReport
from sweeps.report.tables.pictures.classes import compare_classes
from sweeps.report.tables.pictures.figures import table_figures
from sweeps.report.tables.pictures.gallery import gallery
from sweeps.report.tables.results import Results
from sweeps.report.words import about, mean_sd
from sweeps.store import records
from sweeps.store.failures import meanings
from sweeps.store.store import Store, read_record
from sweeps.tables.paper import CITATION
from sweeps.tables.table import Table
from wsss.basics.printable import counted
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
    mlflow_url: str | None = None,
    portable: bool = False,
) -> Report:
    """Read a sweep's results and compare them with the paper's. Missing and failed cells are shown.

    margin: how far, in percentage points, a measured difference may be from the paper's and still
    count as reproduced. mlflow_url: address of the MLflow server, for links to runs; default: where
    they were logged. portable: leave out date, links and the store's path, so that equal results
    give equal text. Raises ConfigError if no finished trial has the measure.
    """
    plan = sweep.plan
    results = Results(store, plan.trials, measure)
    scored = [mious for mious in results.mious.values() if mious]
    if scored and not any(measure in mious for mious in scored):
        raise ConfigError(
            f"--measure {measure}: no finished trial has it, as all of its scored images are in "
            "one half; score more images, or give another --measure"
        )
    pages = {} if portable else _run_pages(store, mlflow_url)
    scale = scale_of(sweep, scored_classes(results.states))

    def command(num_seeds: int) -> str:
        return run_command(sweep, None if portable else store, num_seeds=num_seeds)

    tables = []
    for table in plan.tables:
        cells = _TableEvidence(table, plan, results, margin, scale).cells(pages)
        tables.append(
            TableReport(
                table=table,
                cells=cells,
                answer=answer(table, cells, scale, margin, command),
                scale=scale,
                findings=findings(table, cells, results),
                notes=(*table.notes, *_calibration_notes(table, sweep, store)),
                classes=compare_classes(cells, results),
                gallery=gallery(cells, results),
                figures=tuple(table_figures(table, cells, results)),
            )
        )
    return Report(
        sweep=sweep,
        measure=measure,
        margin=margin,
        scale=scale,
        command=command(sweep.num_seeds),
        about=about(_environments(results)),
        tables=tuple(tables),
        closing=_closing(sweep, results, None if portable else store),
    )


def _calibration_notes(table: Table, sweep: Sweep, store: Store) -> tuple[str, ...]:
    if table.name != calibration.TABLE:
        return ()
    verdict = calibration.read(store, sweep.name)
    return (calibration.sentence(verdict),) if verdict else ()


class _TableEvidence:
    """A table's trials with their mIoU by every measure, and the evidence they give."""

    def __init__(
        self, table: Table, plan: Plan, results: Results, margin: float, scale: Scale
    ) -> None:
        self.table, self.plan, self.results = table, plan, results
        self.comparable = not scale.other_classes
        self.baselines = table.baselines()
        self.run_ids = {
            reference: {t.config.rng_seed: t.run_id for t in plan.cell_trials[reference]}
            for reference, _ in table.cells()
        }
        """Reference -> seed -> run id, of all planned trials."""
        self.mious = {measure: self._read(measure) for measure in Measure}
        """Measure -> reference -> seed -> mIoU, of finished trials."""
        self.evidence = {measure: self._compare(measure, margin) for measure in Measure}
        """Measure -> reference -> evidence."""

    def cells(self, pages: Mapping[str, str]) -> dict[str, CellReport]:
        """Return the table's cells by reference, in its order. pages: MLflow page by run id."""
        labels = self.table.cell_labels()
        return {
            reference: self._cell(reference, labels[reference], cell.paper, pages)
            for reference, cell in self.table.cells()
        }

    def _read(self, measure: Measure) -> dict[str, dict[int, float]]:
        return {
            reference: {
                seed: miou
                for seed, run in by_seed.items()
                if (miou := self.results.mious[run].get(measure)) is not None
            }
            for reference, by_seed in self.run_ids.items()
        }

    def _compare(self, measure: Measure, margin: float) -> dict[str, CellEvidence]:
        """Return evidence by cell. Cells that share their trials are tested once, for Holm's sake.

        None for a baseline, for cells that share its trials, and for those without a seed in
        common with it.
        """
        printed = {reference: cell.paper for reference, cell in self.table.cells()}
        first: dict[tuple[tuple[str, ...], ...], str] = {}
        of = {}
        for reference in sorted(printed, key=lambda name: printed[name] is None):
            pair = self._pair(reference)
            if pair[0] != pair[1]:
                of[reference] = first.setdefault(pair, reference)
        found = table_verdicts(
            printed if self.comparable else {},
            self.mious[measure],
            {reference: self.baselines[reference] for reference in first.values()},
            margin,
        )
        return {ref: found[same] for ref, same in of.items() if found[same].differences.n}

    def _pair(self, reference: str) -> tuple[tuple[str, ...], ...]:
        """Return the trials of a cell and those of its baseline."""
        return tuple(
            tuple(self.run_ids[name].values()) for name in (reference, self.baselines[reference])
        )

    def _cell(
        self, reference: str, labels: tuple[str, ...], paper: float | None, pages: Mapping[str, str]
    ) -> CellReport:
        results, values = self.results, self.mious[self.results.measure]
        baseline = self.baselines[reference]
        own, base = self.run_ids[reference], self.run_ids[baseline]
        mine, theirs = values[reference], values[baseline]
        mean, sd = mean_sd(list(mine.values()))
        common = sorted(mine.keys() & theirs.keys())
        image_difference, better_over_images, better_over_seeds = None, None, None
        if own != base:
            against = results.against([own[s] for s in common], [base[s] for s in common])
            image_difference, better_over_images = against or (None, None)
            if len(common) > 1:
                shares = argmax_stability([(mine[s], theirs[s]) for s in common])
                better_over_seeds = float(shares[0])
        trials = self.plan.cell_trials[reference]
        return CellReport(
            reference=reference,
            labels=labels,
            baseline=baseline,
            paper=paper,
            comparable=self.comparable,
            run_ids=own,
            values=mine,
            mious={measure: self.mious[measure][reference] for measure in Measure},
            level=self._level(reference),
            mean=mean,
            sd=sd,
            seed_interval=seed_interval(list(mine.values())),
            image_interval=results.image_interval([own[s] for s in mine]),
            evidence=self.evidence[results.measure].get(reference),
            image_difference=image_difference,
            better_over_seeds=better_over_seeds,
            better_over_images=better_over_images,
            also=tuple(sorted({cell for t in trials for cell in t.cells} - {reference})),
            failures=tuple(
                f"seed {seed}: {failure}"
                for seed, run in own.items()
                if (failure := results.states[run].failure)
            ),
            dead={
                seed: dead
                for seed, run in own.items()
                if isinstance(dead := results.states[run].dead, DeadMaps)
            },
            seconds=sum(results.states[run].seconds for run in own.values()),
            links=tuple((f"seed {s}", pages[own[s]]) for s in mine if own[s] in pages),
        )

    def _level(self, reference: str) -> LevelOrShape | None:
        found = {m: e for m in Measure if (e := self.evidence[m].get(reference))}
        fixed = found.pop(Measure.fixed, None)
        return level_or_shape(fixed, {m.heading: e for m, e in found.items()}) if fixed else None


def _run_pages(store: Store, url: str | None) -> dict[str, str]:
    """Return the page of each trial's MLflow run, by run id, from what the tracker has saved."""
    pages: dict[str, str] = {}
    for name in store.sweep_names():
        path = store.sweep(name) / "mlflow.json"
        known = read_record(path, records.PAGES) or {"uri": "", "runs": {}}
        server, experiment = url or server_of(known["uri"]), str(known.get("experiment_id"))
        pages |= {run: run_page(server, experiment, id_) for run, id_ in known["runs"].items()}
    return pages


def _closing(sweep: Sweep, results: Results, store: Store | None) -> tuple[tuple[str, Facts], ...]:
    """Return headings with their facts: failures, warnings, costs and provenance."""
    outcomes = [(trial.name, results.states[trial.run_id]) for trial in sweep.plan.trials]
    reasons = tuple((name, state.failure) for name, state in outcomes if state.failure)
    warnings = tuple(
        (name, str(warning))
        for name, state in outcomes
        for warning in (state.warning, state.dead)  # at the label prior; dead maps
        if warning
    )
    meant = meanings(reason.partition(":")[0] for _, reason in reasons)
    found = (
        ("Failed trials", Facts(("trial", "reason"), reasons)),
        ("What the failures mean", Facts(("failure", "meaning"), meant)),
        ("Warnings", Facts(("trial", "warning"), warnings)),
        ("Costs", Facts(("what", "how much"), _costs(sweep.plan, results))),
        ("Provenance", Facts(("what", "value"), _provenance(sweep, results, store))),
    )
    return tuple((heading, facts) for heading, facts in found if facts.rows)


def _provenance(sweep: Sweep, results: Results, store: Store | None) -> tuple[tuple[str, str], ...]:
    """Return what the results were made with; if trials differ, every value with its count.

    store: None: leave out where and when the report was written.
    """
    data = sweep.base.data
    found: list[tuple[str, str]] = [
        ("paper", CITATION),
        ("data", f"{data.name}, fingerprint {data.fingerprint}"),
        ("weights", sweep.base.network.weights),
        ("sweep", sweep.name),
    ]
    environments = _environments(results)
    for key in dict.fromkeys(key for env in environments for key in env):
        counts = Counter(str(env.get(key)) for env in environments)
        mixed = ", ".join(f"{value} ({counted(n, 'trial')})" for value, n in counts.most_common())
        found.append((key, next(iter(counts)) if len(counts) == 1 else f"MIXED: {mixed}"))
    if store:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        found += [("store", store.remote.url or store.root.name), ("report written", now)]
    return tuple(found)


def _costs(plan: Plan, results: Results) -> tuple[tuple[str, str], ...]:
    """Return what the finished trials took. Work that several of them share counts once."""
    done = [(trial, m) for trial in plan.trials if (m := results.states[trial.run_id].metrics)]
    took = dict[str, tuple[float, dict[str, Any]]]()
    for trial, metrics in done:
        environment, inference = metrics["environment"], metrics.get("inference_seconds", 0.0)
        took[trial.cam_id] = metrics["train_seconds"], environment
        took[counts_id(trial.config)] = inference, environment
    spent = Counter[str]()
    for seconds, environment in took.values():
        spent[environment["device"]] += seconds * environment.get("processes", 1)
    found = [
        ("trials", f"{len(done)} of {len(plan.trials)} finished"),
        (
            "configurations",
            f"{plan.num_configs} distinct behind {counted(len(plan.cell_trials), 'cell')}",
        ),
    ]
    found += [(f"{device} time, all trials", format_seconds(s)) for device, s in spent.items()]
    if done:
        total = sum(seconds for seconds, _ in took.values())
        found.append(("mean per trial", format_seconds(total / len(done))))
    return tuple(found)


def _environments(results: Results) -> list[dict[str, Any]]:
    """Return what each finished trial ran on and with."""
    return [state.metrics["environment"] for state in results.states.values() if state.metrics]
