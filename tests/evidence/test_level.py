"""Level or shape: the rule on made-up differences, and its words in a report."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up.finished import fill, finished_sweep

from sweeps.evidence.level import Change, LevelOrShape, level_or_shape
from sweeps.evidence.verdict import CellEvidence, table_verdicts
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.write import as_text
from sweeps.report.tables.build import build_report
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.findings import findings
from sweeps.report.tables.model import Report
from sweeps.report.tables.results import Measure
from sweeps.store.store import Store

UP, DOWN, NOTHING = [5.1, 4.8, 5.2], [-3.1, -2.9, -3.0], [0.3, -0.4, 0.1]


def evidence(differences: list[float]) -> CellEvidence:
    """A cell above a baseline of 40 by these differences, one a seed."""
    measured = {
        "base": dict.fromkeys(range(len(differences)), 40.0),
        "cell": {seed: 40 + d for seed, d in enumerate(differences)},
    }
    return table_verdicts({}, measured, {"cell": "base"}, 0.5)["cell"]


def rule(fixed: list[float], *others: list[float]) -> LevelOrShape:
    """Judge differences at the fixed score, and of the other measures."""
    named = zip(("held-out", "best", "AUC"), map(evidence, others), strict=True)
    return level_or_shape(evidence(fixed), dict(named))


@pytest.mark.parametrize(
    ("fixed", "others", "kind"),
    [
        (UP, (UP, UP, UP), Change.SHAPE),
        (DOWN, (DOWN, DOWN, DOWN), Change.SHAPE),
        (UP, (NOTHING, NOTHING, NOTHING), Change.LEVEL),
        (UP, (DOWN, DOWN, DOWN), Change.LEVEL),
        (UP, (DOWN, NOTHING, NOTHING), Change.LEVEL),
        (UP, (UP, UP, NOTHING), Change.PARTLY),
        (UP, (UP, UP, DOWN), Change.PARTLY),
        (NOTHING, (UP, UP, UP), Change.PARTLY),
        (NOTHING, (DOWN, DOWN, DOWN), Change.PARTLY),
        (NOTHING, (NOTHING, UP, NOTHING), None),
        (NOTHING, (UP, UP, DOWN), None),
        (NOTHING, (NOTHING, NOTHING, NOTHING), None),
    ],
)
def test_the_four_differences_decide_level_or_shape(
    fixed: list[float], others: tuple[list[float], ...], kind: Change | None
) -> None:
    assert rule(fixed, *others).kind is kind


def test_one_seed_or_one_measure_says_nothing() -> None:
    found = rule([5.0], [5.0], [5.0], [5.0])
    assert found == (None, "one seed cannot tell level and shape apart")
    assert level_or_shape(evidence(UP), {}).kind is None


def test_the_reason_has_each_difference_and_which_of_them_hold() -> None:
    partly = rule(UP, NOTHING, UP, UP)
    assert partly.reason.startswith(
        "partly of shape (at the fixed score and best and AUC only): fixed +5.03"
    )
    assert "held-out +0.00 (p 1.000)" in partly.reason


def test_a_level_whose_loss_is_not_shown_says_so() -> None:
    noisy = [9.0, -3.0, 8.0]  # 4.67 on average: as large, but not significant
    doubt = "though these seeds do not show it to be smaller at other thresholds"
    assert rule(UP, noisy, noisy, noisy).kind is Change.LEVEL
    assert doubt in rule(UP, noisy, noisy, noisy).reason
    assert doubt not in rule(UP, NOTHING, NOTHING, NOTHING).reason
    larger = replace(evidence([7.0, 7.6, 6.7]), holm_p=0.2, differs=False)  # of many cells
    assert doubt in level_or_shape(evidence(UP), {"AUC": larger}).reason


def test_a_level_that_turns_round_says_where() -> None:
    assert "has the other sign at held-out and AUC: fixed" in rule(UP, DOWN, NOTHING, DOWN).reason
    assert "other sign" not in rule(UP, NOTHING, NOTHING, NOTHING).reason


# In a report

MOVED = "III[yes,yes]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """III with equal cells, of which one is 5 points better at the fixed score and nowhere else."""
    store, sweep = Store(tmp_path_factory.mktemp("store")), finished_sweep(("III",), 3)
    noise = np.random.default_rng(0)
    fill(store, sweep, lambda trial: 0.5 + float(noise.normal(0, 0.005)))
    for trial in sweep.plan.cell_trials[MOVED]:
        (base,) = (
            t
            for t in sweep.plan.cell_trials["III[no,no]"]
            if t.config.rng_seed == trial.config.rng_seed
        )
        path = store.run(trial.run_id).path / "done.json"
        theirs = store.run(base.run_id).metrics()
        assert theirs is not None
        moved = theirs["miou_fixed"] + 5 + trial.config.rng_seed / 100
        path.write_text(json.dumps(json.loads(path.read_text()) | {"miou_fixed": moved}))
    return build_report(sweep, store)


def test_the_auc_of_a_report_is_that_of_the_stored_curves(report: Report) -> None:
    cell = report.tables[0].cells["III[no,no]"]
    assert set(cell.mious[Measure.auc]) == {0, 1, 2}
    # Made-up maps are far above or far below each threshold in the range: their curve is flat there
    assert cell.mious[Measure.auc] == pytest.approx(cell.mious[Measure.best], abs=1e-3)


def test_a_report_says_level_where_only_the_fixed_score_gains(report: Report) -> None:
    said = f"{MOVED} is of level (shown only at the fixed score; another threshold may undo it)"
    assert any(said in line for line in findings(report.tables[0]))
    document = sweep_document(report)
    assert "Level or shape: mIoU by choice of the threshold" in as_text(document)
    lines = {
        line["cell"]: line for line in csv.DictReader(io.StringIO(records_text(document.records)))
    }
    assert lines[MOVED]["level_or_shape"] == "level"
    assert lines["III[no,no]"]["level_or_shape"] == "baseline"
    auc = report.tables[0].cells[MOVED].mious[Measure.auc]
    assert float(lines[MOVED]["mean_miou_auc"]) == pytest.approx(np.mean(list(auc.values())))
    assert float(lines[MOVED]["sd_over_seeds_auc"]) == pytest.approx(
        np.std(list(auc.values()), ddof=1)
    )


def test_a_run_without_a_held_out_figure_is_judged_by_the_rest(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 2)
    fill(store, sweep, lambda trial: 0.6 if trial.cells[0] == MOVED else 0.5)
    for trial in sweep.plan.trials:
        path = store.run(trial.run_id).path / "done.json"
        metrics = json.loads(path.read_text())
        del metrics["miou_held_out"]
        path.write_text(json.dumps(metrics))
    cell = build_report(sweep, store).tables[0].cells[MOVED]
    assert cell.mious[Measure.held_out] == {}
    assert "held-out" not in cell.level.reason
    assert "best" in cell.level.reason
