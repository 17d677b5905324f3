"""The results of a sweep in a script: rows, a DataFrame, counts; docs/using.md's own example."""

import re
from pathlib import Path

import numpy as np
import pytest
from made_up.bucket_server import BUCKET
from made_up.finished import fill, finish, finished_sweep

from sweeps.api import SweepResults, open_results
from sweeps.store.errors import StoreError
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import Store

REPO = Path(__file__).parents[2]
SWEEP = finished_sweep(("V",), 2)
FAILED, MISSING, *OTHERS = SWEEP.plan.trials


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table V with two seeds; one trial failed, one is missing."""
    root = tmp_path_factory.mktemp("lab") / "results"
    done = {trial.run_id: 0.5 + 0.01 * at for at, trial in enumerate(OTHERS)}
    fill(Store(root), SWEEP, lambda trial: done.get(trial.run_id), num_images=6)
    Store(root).run(FAILED.run_id).fail("diverged", "loss is NaN", "")
    return root


def test_the_frame_has_what_the_store_has_a_row_per_trial(root: Path) -> None:
    results = open_results(root)
    assert repr(results) == f"SweepResults({SWEEP.name} in {root})"
    frame = results.to_pandas().set_index("run_id")
    assert list(frame.index) == [trial.run_id for trial in SWEEP.plan.trials]
    assert frame["state"].to_dict() == {
        t.run_id: "failed" if t is FAILED else "missing" if t is MISSING else "finished"
        for t in SWEEP.plan.trials
    }
    assert frame.loc[FAILED.run_id, "failure"] == "diverged: loss is NaN"
    assert np.isnan(frame.loc[MISSING.run_id, "miou_fixed"])
    for trial in OTHERS:
        row, stored = frame.loc[trial.run_id], Store(root).run(trial.run_id).result() or {}
        assert (row["cells"], row["seed"]) == (", ".join(trial.cells), trial.config.rng_seed)
        assert row["transfer.lambda_bs"] == trial.config.transfer.lambda_bs
        for name in ("miou_fixed", "miou_held_out", "miou_best"):
            assert row[name] == stored[name]
        assert row["iou_fixed/background"] == stored["iou_fixed"][0]
        assert row["iou_fixed/tvmonitor"] == pytest.approx(stored["iou_fixed"][20], nan_ok=True)
        assert (row["train_seconds"], row["device"]) == (60.0, "cpu")
    assert "network.backbone" not in frame  # equal in all trials


def test_the_rows_have_what_others_have_put_into_the_bucket_since(
    port: int, tmp_path: Path
) -> None:
    here, there = (Remote(f"s3://{BUCKET}/x", tmp_path / name) for name in ("here", "there"))
    results = SweepResults(Store(there.mirror, there), SWEEP)
    assert {row.state for row in results.trials()} == {"missing"}
    finish(Store(here.mirror, here), OTHERS[0], 0.5)
    here.push_folder("runs")
    assert [row.run_id for row in results.trials() if row.state == "finished"] == [OTHERS[0].run_id]


def test_counts_give_the_figures_again(root: Path) -> None:
    results, trial = open_results(str(root), SWEEP.name), OTHERS[0]
    stored = results.store.run(trial.run_id).result() or {}
    assert results.image_counts(trial.run_id).fixed.miou() == pytest.approx(stored["miou_fixed"])
    assert len(results.threshold_counts(trial.run_id).image_ids) == 6
    with pytest.raises(StoreError, match="not a finished trial"):
        results.threshold_counts(MISSING.run_id)


@pytest.mark.parametrize("table", ["V", "III"])
def test_the_example_on_the_page_runs_whatever_table_was_started_last(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Store(tmp_path / "results"), finished_sweep((table,), 1), lambda _: 0.5, num_images=6)
    page = (REPO / "docs" / "using.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    said = capsys.readouterr().out
    assert {"V": "V[0.5,0.1] 0 finished", "III": "III[yes,no] 0 finished"}[table] in said
    assert "iou_fixed/person" in said
