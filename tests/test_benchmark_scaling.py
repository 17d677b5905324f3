"""The scaling benchmark runs, on few trials, and counts what it should. Times are not asserted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scaling.py"


def figures(*options: str) -> dict[str, float]:
    """Run the benchmark in a process of its own; return the figures of its last line."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_replay_tells_every_event_and_logs_every_trial_once() -> None:
    found = figures("replay", "--trials", "20", "--gpus", "16")
    assert found["events"] == 20 * (1 + 8 + 1)  # start, epochs, end
    assert found["trials_done"] == 20
    assert found["runs"] == 20 + 1  # that of the sweep
    assert found["runs_with_params"] == 20 + 1


def test_a_store_of_finished_runs_is_listed_and_shown() -> None:
    found = figures("store", "--trials", "100")
    assert {"list_names", "read_metrics", "status", "table", "plan"} <= found.keys()


@pytest.mark.cluster
@pytest.mark.timeout(280)
def test_a_sweep_over_logical_gpus_ends_every_trial() -> None:
    found = figures("sweep", "--trials", "10", "--gpus", "4", "--nodes", "2", "--no-tracking")
    assert found["trials_done"] == 10
    assert found["events"] == 10 * (1 + 8 + 1)
