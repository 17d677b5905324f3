"""The scaling benchmark runs, on few trials, and counts what it should. Times are not asserted."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from sweeps.tables.studies import TABLES

Figures = Callable[..., dict[str, float]]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's own
    # Ray's own sockets, left to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REPO = Path(__file__).parents[2]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Figures:
    """Run the benchmark in this process; return the figures of its last line."""
    monkeypatch.setenv("RAY_worker_niceness", "0")  # it sets both
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.syspath_prepend(REPO)

    def run(*options: str) -> dict[str, float]:
        monkeypatch.setattr(sys, "argv", ["scaling", *options])
        with patch.dict(TABLES):  # it adds one
            runpy.run_module("benchmarks.scaling", run_name="__main__")
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_a_replay_tells_every_event_and_logs_every_trial_once(figures: Figures) -> None:
    found = figures("replay", "--trials", "20", "--gpus", "16")
    assert found["events"] == 20 * (1 + 8 + 1)  # start, epochs, end
    assert found["trials_done"] == 20
    assert found["runs"] == 20 + 1  # that of the sweep
    assert found["runs_with_params"] == 20 + 1


def test_a_store_of_finished_runs_is_listed_and_shown(figures: Figures) -> None:
    found = figures("store", "--trials", "100")
    assert {"list_names", "read_metrics", "status", "table", "plan_print"} <= found.keys()
