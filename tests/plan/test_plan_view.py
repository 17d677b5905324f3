"""`sweeps plan`: a line per configuration, a summary of many, and everything as JSON."""

import io
import json
from pathlib import Path

import pytest
from commands import sweeps
from made_up.finished import finish, finished_sweep
from rich.console import Console

from sweeps.plan.sweep import Sweep
from sweeps.report.live.plan_view import plan_json, print_plan
from sweeps.report.live.status import Status
from sweeps.store.store import Store, write_json


@pytest.fixture
def sweep() -> Sweep:
    """Tables IV and VI, three seeds: 8 cells, 7 configurations."""
    return finished_sweep(("IV", "VI"), 3)


@pytest.fixture
def store(tmp_path: Path, sweep: Sweep) -> Store:
    """Of the shared cell, seed 0 finished, 1 started, 2 failed."""
    store = Store(tmp_path)
    first, second, third = sweep.plan.cell_trials["VI[no,no]"]
    finish(store, first, 0.5)
    store.cam(second.cam_id).add_epoch({"epoch": 1})
    write_json(store.run(third.run_id).path / "failure.json", {"kind": "x", "message": "y"})
    return store


def printed(sweep: Sweep, store: Store, *, concurrent: int = 1, show_all: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    print_plan(console, Status(store, sweep), concurrent=concurrent, show_all=show_all)
    return console.file.getvalue()


def test_a_configuration_is_one_line_with_its_seeds_time_and_cells(
    sweep: Sweep, store: Store
) -> None:
    lines = printed(sweep, store).splitlines()
    shared = next(line for line in lines if "VI[no,no]" in line)
    assert shared.split() == ["0✓", "1▸", "2✗", "64", "s", "IV[no,no,no]", "=", "VI[no,no]"]
    other = next(line for line in lines if "VI[yes,yes]" in line)
    assert other.split() == ["0–", "1–", "2–", "4", "min", "VI[yes,yes]"]  # 3 x 72 s
    assert sum(line.startswith("  0") for line in lines) == 7
    assert (
        "8 cells, 7 distinct configurations, up to 3 seeds: 21 trials, "
        "1 finished, 1 started, 18 missing, 1 failed"
    ) in lines
    (left,) = [line for line in lines if line.startswith("19 trials to run: about 23 min one at")]
    assert "at a time if" not in left
    assert "11 min at 2 at a time" in printed(sweep, store, concurrent=2)


def test_without_a_measurement_the_time_is_a_question_mark(sweep: Sweep, tmp_path: Path) -> None:
    text = printed(sweep, Store(tmp_path / "empty"))
    assert "  0– 1– 2–           ?  IV[yes,no,no]" in text
    assert "time unknown: no trial has ended yet" in text


def test_many_configurations_are_summed_up_by_table_unless_all_are_asked_for(store: Store) -> None:
    many = finished_sweep(("IV", "VI", "readings", "background-score"), 3)
    text = printed(many, store)
    assert f"{len(many.plan.configs)} configurations: list them with --all" in text
    assert "VI[yes,yes]" not in text
    rows = [line.split() for line in text.splitlines()]
    assert [row for row in rows if row and row[0] in ("IV", "VI")] == [
        ["IV", "4", "4", "1", "1", "9", "1", "12", "min"],
        ["VI", "4", "4", "1", "1", "9", "1", "12", "min"],
    ]
    assert "VI[yes,yes]" in printed(many, store, show_all=True)


def test_json_holds_every_trial_and_the_totals(sweep: Sweep, store: Store) -> None:
    found = json.loads(json.dumps(plan_json(Status(store, sweep))))
    assert [trial["run_id"] for trial in found["trials"]] == [t.run_id for t in sweep.plan.trials]
    shared = [t for t in found["trials"] if "VI[no,no]" in t["cells"]]
    kept = ("seed", "status", "estimated_from", "estimated_seconds")
    assert [[trial[key] for key in kept] for trial in shared] == [
        [0, "finished", "", None],
        [1, "started", "same", pytest.approx(64.5)],
        [2, "failed", "", None],
    ]
    counts = {"cells": 8, "configurations": 7, "trials": 21}
    counts |= {"finished": 1, "started": 1, "missing": 18, "failed": 1}
    assert counts.items() <= found["totals"].items()
    assert found["totals"]["estimated_seconds"] == pytest.approx(64.5 + 18 * 72)


def test_the_command_plans_a_table_and_a_study_without_a_store(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    words = ["--data", drawn, "--preset", "tiny", "--store", tmp_path / "none"]
    done = sweeps("plan", "III", "noise-floor", "--seeds", 2, "--json", *words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    # III-both is F3; the noise floor adds B0 and two repeats of seed 0.
    assert found["totals"]["configurations"] == 7
    assert found["totals"]["trials"] == 4 * 2 + 2 + 2
    assert not (tmp_path / "none").exists()
    assert len(list((tmp_path / "cache" / "checks").iterdir())) == 1
