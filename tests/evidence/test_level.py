"""Level or shape: the rule on made-up differences, and its words in a report."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from made_up.finished import fill, finished_sweep

from sweeps.evidence.level import Change, LevelOrShape, level_or_shape
from sweeps.evidence.verdict import CellEvidence, table_verdicts
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.write import as_text
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.model import build_report
from sweeps.report.tables.results import Measure
from sweeps.store.store import Store, read_json, write_json

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
    named = zip(("held-out", "best", "AUC"), map(evidence, others), strict=False)
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


NOISY = [9.0, -3.0, 8.0]
"""4.67 on average: as large as UP, but not significant."""
DOUBT = "shown at the fixed score alone, but not to be smaller at other thresholds"


@pytest.mark.parametrize(
    ("fixed", "others", "said"),
    [
        ([5.0], ([5.0], [5.0], [5.0]), "one seed cannot tell level and shape apart"),
        (UP, (), "no other choice of threshold was measured"),
        (UP, (NOTHING, UP, UP), "(shown at the fixed score and best and AUC only): fixed +5.03"),
        (UP, (NOTHING, UP, UP), "held-out +0.00 (p 1.000)"),
        (UP, (NOISY, NOISY, NOISY), DOUBT),
        (UP, (DOWN, NOTHING, DOWN), "has the other sign at held-out and AUC: fixed"),
    ],
)
def test_the_reason_has_each_difference_and_which_of_them_hold(
    fixed: list[float], others: tuple[list[float], ...], said: str
) -> None:
    assert said in rule(fixed, *others).reason


def test_a_difference_is_of_level_only_if_its_loss_is_shown() -> None:
    clear = rule(UP, NOTHING, NOTHING, NOTHING)
    assert clear.kind is Change.LEVEL
    assert "other sign" not in clear.reason
    larger = replace(evidence([7.0, 7.6, 6.7]), holm_p=0.2, differs=False)  # of many cells
    for other in (larger, evidence(NOISY)):
        doubtful = level_or_shape(evidence(UP), {"AUC": other})
        assert doubtful.kind is None
        assert DOUBT in doubtful.reason


def test_hardly_any_change_of_shape_is_taken_for_one_of_level() -> None:
    rng, shown, level = np.random.default_rng(0), 0, 0
    for _ in range(300):
        gains = 0.8 + rng.normal(0, 0.4, 5)  # at every threshold, but for the noise of each
        others = (gains + rng.normal(0, 0.4, 5) for _ in range(3))
        found = rule(gains.tolist(), *(other.tolist() for other in others))
        shown += found.kind is not None or DOUBT in found.reason
        level += found.kind is Change.LEVEL
    assert shown > 200
    assert level / shown < 0.02  # .07 if the others only had to show nothing


# In a report

MOVED = "III[yes,yes]"


def test_a_report_says_level_where_only_the_fixed_score_gains(store: Store) -> None:
    """III with equal cells, of which one is 5 points better at the fixed score and nowhere else."""
    sweep = finished_sweep(("III",), 3)
    noise = np.random.default_rng(0)
    fill(store, sweep, lambda trial: 0.5 + float(noise.normal(0, 0.005)))
    pairs = zip(*(sweep.plan.cell_trials[name] for name in (MOVED, "III[no,no]")), strict=True)
    for trial, base in pairs:
        path, theirs = (store.run(t.run_id).path / "done.json" for t in (trial, base))
        moved = read_json(theirs)["miou_fixed"] + 5 + trial.config.rng_seed / 100
        write_json(path, read_json(path) | {"miou_fixed": moved})
    report = build_report(sweep, store)
    document = sweep_document(report)
    text = " ".join(as_text(document).split())
    said = f"{MOVED} is of level (shown to be smaller or undone at another threshold)"
    assert said in text
    assert "Level or shape: mIoU by choice of the threshold" in text
    lines = csv.DictReader(io.StringIO(records_text(document.records)))
    by_cell = {line["cell"]: line for line in lines}
    assert by_cell[MOVED]["level_or_shape"] == "level"
    assert by_cell["III[no,no]"]["level_or_shape"] == "baseline"
    mious = report.tables[0].cells[MOVED].mious
    auc = list(mious[Measure.auc].values())
    # Made-up maps are far above or far below each threshold in the range: their curve is flat there
    assert mious[Measure.auc] == pytest.approx(mious[Measure.best], abs=1e-3)
    assert float(by_cell[MOVED]["mean_miou_auc"]) == pytest.approx(np.mean(auc))
    assert float(by_cell[MOVED]["sd_over_seeds_auc"]) == pytest.approx(np.std(auc, ddof=1))


def test_a_run_without_a_held_out_figure_is_judged_by_the_rest(store: Store) -> None:
    sweep = finished_sweep(("III",), 2)
    fill(store, sweep, lambda trial: 0.6 if trial.cells[0] == MOVED else 0.5)
    for path in store.root.glob("runs/*/done.json"):
        metrics = read_json(path)
        del metrics["miou_held_out"]
        write_json(path, metrics)
    cell = build_report(sweep, store).tables[0].cells[MOVED]
    assert cell.mious[Measure.held_out] == {}
    assert "held-out" not in cell.level.reason
    assert "best" in cell.level.reason
