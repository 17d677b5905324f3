"""Reads a sweep's results from the store and weighs them: cells, evidence, provenance, costs."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sweeps.evidence import calibration
from sweeps.evidence.level import LevelOrShape, level_or_shape
from sweeps.evidence.seeds import mean_sd, seed_interval
from sweeps.evidence.verdict import CellEvidence, table_verdicts
from sweeps.plan.scale import changed_settings, readings, scale_marks
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan
from sweeps.report.tables.findings import findings, headline
from sweeps.report.tables.model import CellReport, Measure, Report, TableReport
from sweeps.report.tables.pictures import table_pictures
from sweeps.report.tables.results import Results
from sweeps.report.words import counted, duration
from sweeps.store.failures import meanings
from sweeps.store.store import Store, read_json
from sweeps.tables.notes import notes_on
from sweeps.tables.table import Row, Table

LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where `make mlflow` serves a store's own SQLite file."""

DEFAULT_MARGIN = 0.5
"""Percentage points of mIoU within which a difference counts as the paper's."""


def build_report(
    sweep: Sweep,
    store: Store,
    *,
    measure: Measure = Measure.fixed,
    margin: float = DEFAULT_MARGIN,
    mlflow_url: str | None = None,
) -> Report:
    """Read a sweep's results and weigh them. Missing and failed cells are part of the report.

    margin: how far, in percentage points, a measured difference may be from the paper's and still
    count as reproduced. mlflow_url: address of the MLflow server, for links to runs.
    """
    plan = sweep.plan
    results = Results(store, plan.trials, measure)
    links = _Links(store, mlflow_url)
    marks = scale_marks(sweep)
    tables, pictured = [], set[str]()
    for table in plan.tables:
        cells = _cells(table, plan, results, links, margin)
        tables.append(
            TableReport(
                table=table,
                cells=cells,
                headline=headline(cells, small_scale=bool(marks)),
                findings=findings(table, cells, results),
                notes=(*table.notes, *_calibration_notes(table, sweep, store)),
                pictures=table_pictures(table, cells, plan, results, pictured),
            )
        )
    return Report(
        sweep=sweep,
        measure=measure,
        margin=margin,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        scale_marks=marks,
        tables=tuple(tables),
        paper_notes=notes_on(sweep.table_names),
        readings=readings(sweep.base),
        changes=changed_settings(sweep),
        provenance=_provenance(sweep, store, results),
        failures=_failures(plan, results),
        failure_meanings=_failure_meanings(plan, results),
        warnings=_warnings(plan, results),
        costs=_costs(plan, results),
    )


def _calibration_notes(table: Table, sweep: Sweep, store: Store) -> tuple[str, ...]:
    """Return the verdict of `sweeps calibrate`, if it has given one on this sweep."""
    if table.name != calibration.TABLE:
        return ()
    verdict = calibration.read(store, sweep.name)
    return (calibration.sentence(verdict),) if verdict else ()


def cell_labels(table: Table, row: Row, column: str) -> tuple[str, ...]:
    """Return a cell's row labels, and its column if the table has several."""
    return row.labels if len(table.columns) == 1 else (*row.labels, column)


def _cells(
    table: Table, plan: Plan, results: Results, links: "_Links", margin: float
) -> dict[str, CellReport]:
    run_ids = {
        reference: {t.config.rng_seed: t.run_id for t in plan.cell_trials[reference]}
        for reference, _ in table.cells()
    }
    mious = {
        measure: {
            reference: {
                s: v for s, r in by_seed.items() if (v := results.miou(r, measure)) is not None
            }
            for reference, by_seed in run_ids.items()
        }
        for measure in Measure
    }
    paper = {reference: cell.paper for reference, cell in table.cells()}
    evidence = {m: _evidence(table, run_ids, mious[m], margin) for m in Measure}
    cells = {}
    for row in table.rows:
        for column in table.columns:
            reference = table.reference(row, column)
            cells[reference] = _cell(
                reference, cell_labels(table, row, column), paper[reference], run_ids, mious,
                {m: e for m in Measure if (e := evidence[m].get(reference))}, table.baseline, plan,
                results, links,
            )  # fmt: skip
    return cells


def _evidence(
    table: Table,
    run_ids: Mapping[str, Mapping[int, str]],
    values: Mapping[str, Mapping[int, float]],
    margin: float,
) -> dict[str, CellEvidence]:
    """Weigh each set of trials once, though several cells may share it, lest Holm count it twice.

    The baseline and cells that are its own trials have no evidence, nor have those without a seed
    in common with it.
    """
    printed = {reference: cell.paper for reference, cell in table.cells()}
    first: dict[tuple[str, ...], str] = {tuple(run_ids[table.baseline].values()): table.baseline}
    of = {}
    for reference in sorted(printed, key=lambda name: printed[name] is None):
        of[reference] = first.setdefault(tuple(run_ids[reference].values()), reference)
    distinct = set(of.values())
    found = table_verdicts(
        {reference: printed[reference] for reference in distinct},
        {reference: values[reference] for reference in distinct},
        table.baseline,
        margin,
    )
    return {
        reference: found[same]
        for reference, same in of.items()
        if same in found and found[same].differences.n
    }


def _cell(
    reference: str,
    labels: tuple[str, ...],
    paper: float | None,
    run_ids: Mapping[str, Mapping[int, str]],
    mious: Mapping[Measure, Mapping[str, Mapping[int, float]]],
    evidence: Mapping[Measure, CellEvidence],
    baseline: str,
    plan: Plan,
    results: Results,
    links: "_Links",
) -> CellReport:
    values = mious[results.measure]
    own, mine, theirs = run_ids[reference], values[reference], values[baseline]
    mean, sd = mean_sd(list(mine.values())) if mine else (None, None)
    common = sorted(mine.keys() & theirs.keys())
    is_baseline = own == run_ids[baseline]
    return CellReport(
        reference=reference,
        labels=labels,
        paper=paper,
        run_ids=dict(own),
        values=dict(mine),
        mious={measure: dict(mious[measure][reference]) for measure in Measure},
        level=None if is_baseline else _level(evidence),
        mean=mean,
        sd=sd,
        seed_interval=_bounds(list(mine.values())),
        image_interval=results.image_interval([own[s] for s in mine]),
        evidence=None if is_baseline else evidence.get(results.measure),
        image_difference=None
        if is_baseline
        else results.image_difference(
            [own[s] for s in common], [run_ids[baseline][s] for s in common]
        ),
        also=tuple(sorted({c for t in plan.cell_trials[reference] for c in t.cells} - {reference})),
        failures=tuple(
            f"seed {seed}: {failure['kind']}: {failure['message']}"
            for seed, run in own.items()
            if (failure := results.by_id[run].failure)
        ),
        seconds=sum(results.by_id[run].seconds for run in own.values()),
        links=tuple((f"seed {s}", url) for s in mine if (url := links.of(own[s]))),
    )


def _level(evidence: Mapping[Measure, CellEvidence]) -> LevelOrShape | None:
    fixed = evidence.get(Measure.fixed)
    others = {m.heading: e for m, e in evidence.items() if m is not Measure.fixed}
    return level_or_shape(fixed, others) if fixed else None


def _bounds(values: list[float]) -> tuple[float, float] | None:
    found = seed_interval(values) if values else None
    return (found.low, found.high) if found else None


class _Links:
    """Addresses of MLflow runs, from what the tracker wrote down when it logged them."""

    def __init__(self, store: Store, url: str | None) -> None:
        self.addresses: dict[str, str] = {}
        for name in store.sweep_names():
            known = read_json(store.sweep(name) / "mlflow.json") or {"uri": "", "runs": {}}
            server = known["uri"] if known["uri"].startswith("http") else LOCAL_SERVER
            base = f"{(url or server).rstrip('/')}/#/experiments/{known.get('experiment_id')}/runs/"
            self.addresses |= {run: base + mlflow_id for run, mlflow_id in known["runs"].items()}

    def of(self, run_id: str) -> str | None:
        """Return the address of a trial's MLflow run, or None if it was never logged."""
        return self.addresses.get(run_id)


def _provenance(sweep: Sweep, store: Store, results: Results) -> tuple[tuple[str, str], ...]:
    """Return what the results rest on; where trials differ, every value with its number."""
    data = sweep.base.data
    found: list[tuple[str, str]] = [
        ("data", f"{data.name}, fingerprint {data.fingerprint}"),
        ("weights", sweep.base.network.weights),
        ("store", store.root.name),
        ("sweep", sweep.name),
    ]
    environments: list[dict[str, Any]] = [
        r.metrics["environment"] for r in results.by_id.values() if r.metrics
    ]
    for key in dict.fromkeys(key for env in environments for key in env):
        counts = Counter(str(env.get(key)) for env in environments)
        mixed = ", ".join(f"{value} ({n} trials)" for value, n in counts.most_common())
        found.append((key, next(iter(counts)) if len(counts) == 1 else f"MIXED: {mixed}"))
    return tuple(found)


def _failures(plan: Plan, results: Results) -> tuple[tuple[str, str], ...]:
    return tuple(
        (trial.name, f"{failure['kind']}: {failure['message']}")
        for trial in plan.trials
        if (failure := results.by_id[trial.run_id].failure)
    )


def _failure_meanings(plan: Plan, results: Results) -> tuple[tuple[str, str], ...]:
    failures = (results.by_id[trial.run_id].failure for trial in plan.trials)
    return meanings(failure["kind"] for failure in failures if failure)


def _warnings(plan: Plan, results: Results) -> tuple[tuple[str, str], ...]:
    return tuple(
        (trial.name, str(warning))
        for trial in plan.trials
        for warning in (results.by_id[trial.run_id].warning, results.by_id[trial.run_id].dead)
        if warning
    )


def _costs(plan: Plan, results: Results) -> tuple[tuple[str, str], ...]:
    done = [r for t in plan.trials if (r := results.by_id[t.run_id]).metrics]
    devices = Counter[str]()
    for result in done:
        environment = (result.metrics or {})["environment"]
        devices[environment["device"]] += result.seconds * environment.get("processes", 1)
    return (
        ("trials", f"{len(done)} finished of {counted(len(plan.trials), 'trial')}"),
        ("configurations", f"{plan.num_configs} distinct behind {len(plan.cell_trials)} cells"),
        *((f"{device} time, all trials", duration(spent)) for device, spent in devices.items()),
        *([("mean per trial", duration(sum(r.seconds for r in done) / len(done)))] if done else []),
    )
