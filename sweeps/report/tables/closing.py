"""The end of a sweep's report: what failed, what it cost, and what it was made with."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sweeps.plan.chains.chain import counts_id
from sweeps.report.document import Bullets
from sweeps.report.live.cost_lines import format_seconds
from sweeps.report.tables.model import Report
from sweeps.report.tables.results import Results
from sweeps.store.failures import meanings
from sweeps.tables.paper import CITATION
from wsss.basics.printable import counted

Rows = Iterator[tuple[str, str]]


def closing(report: Report) -> dict[str, Bullets]:
    """Return facts by their heading: failures, warnings, costs and provenance."""
    trials, states = report.sweep.plan.trials, report.results.states
    failed = {trial.name: why for trial in trials if (why := states[trial.run_id].failure)}
    warnings = [
        (trial.name, warning)
        for trial in trials
        for warning in (states[trial.run_id].warning, states[trial.run_id].dead)
        if warning
    ]
    found = {
        "Failed trials": failed.items(),
        "What the failures mean": meanings(why.partition(":")[0] for why in failed.values()),
        "Warnings": warnings,
        "Costs": _costs(report),
        "Provenance": _provenance(report),
    }
    facts = {heading: Bullets.of(rows) for heading, rows in found.items()}
    return {heading: bullets for heading, bullets in facts.items() if bullets.items}


def environments(results: Results) -> list[dict[str, Any]]:
    """Return what each finished trial ran on and with."""
    return [state.metrics["environment"] for state in results.states.values() if state.metrics]


def _costs(report: Report) -> Rows:
    """Yield what the finished trials took. Work that several of them share counts once."""
    plan, states = report.sweep.plan, report.results.states
    took: dict[str, tuple[float, dict[str, Any]]] = {}
    num_done = 0
    for trial in plan.trials:
        if metrics := states[trial.run_id].metrics:
            num_done += 1
            environment, inference = metrics["environment"], metrics.get("inference_seconds", 0.0)
            took[trial.cam_id] = metrics["train_seconds"], environment
            took[counts_id(trial.config)] = inference, environment
    yield "trials", f"{num_done} of {len(plan.trials)} finished"
    num_cells = counted(len(plan.cell_trials), "cell")
    yield "configurations", f"{len(plan.configs)} distinct behind {num_cells}"
    spent = Counter[str]()
    for seconds, environment in took.values():
        spent[environment["device"]] += seconds * environment.get("processes", 1)
    for device, seconds in spent.items():
        yield f"{device} time, all trials", format_seconds(seconds)
    if num_done:
        total = sum(seconds for seconds, _ in took.values())
        yield "mean per trial", format_seconds(total / num_done)


def _provenance(report: Report) -> Rows:
    """Yield what the results were made with; if trials differ, every value with its count."""
    sweep, store, data = report.sweep, report.store, report.sweep.base.data
    yield "paper", CITATION
    yield "data", f"{data.name}, fingerprint {data.fingerprint}"
    yield "weights", sweep.base.network.weights
    yield "sweep", sweep.name
    known = environments(report.results)
    for key in dict.fromkeys(key for environment in known for key in environment):
        counts = Counter(str(environment.get(key)) for environment in known)
        mixed = ", ".join(f"{value} ({counted(n, 'trial')})" for value, n in counts.most_common())
        yield key, next(iter(counts)) if len(counts) == 1 else f"MIXED: {mixed}"
    if store:
        yield "store", store.remote.url or store.root.name
        yield "report written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
