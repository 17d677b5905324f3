"""The shared client: a local database is whole whenever its maker is killed; experiments, runs."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeps.store.store import Store
from sweeps.track.client import experiment_of, find_run, open_client, tracking_uri

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own

OPEN = "import sys; from sweeps.track.client import open_client; open_client(sys.argv[1])"


@pytest.mark.parametrize("num_bytes", [1, 100_000])
def test_a_database_whose_maker_was_killed_can_be_used(tmp_path: Path, num_bytes: int) -> None:
    """At 100 kB, MLflow would find some of its tables and refuse to make the others."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with subprocess.Popen([sys.executable, "-c", OPEN, uri], stderr=subprocess.DEVNULL) as process:
        while _size(tmp_path) < num_bytes:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "mlflow.db").exists()
    client = open_client(uri)
    run = client.create_run("0")
    assert open_client(uri).get_run(run.info.run_id).info.status == "RUNNING"
    assert not list(tmp_path.glob("*.partial*"))


def test_an_experiment_is_made_once_with_its_artifacts_in_a_local_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path)
    client = open_client(tracking_uri(store))
    made = experiment_of(client, "wsss", store, tags={"kind": "test"})
    assert experiment_of(client, "wsss", store) == made
    assert experiment_of(client, "another", store) != made
    experiment = client.get_experiment(made)
    assert experiment.artifact_location == f"file://{tmp_path}/mlartifacts"
    assert experiment.tags["kind"] == "test"
    runs = [client.create_run(made, tags={"a": "1", "b": b}).info.run_id for b in ("1", "2")]
    found = [find_run(client, made, {"a": "1", "b": b}) for b in ("1", "2", "3")]
    assert [run and run.info.run_id for run in found] == [*runs, None]


def test_a_server_chooses_where_artifacts_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://192.0.2.1:5000")
    asked: list[Any] = []

    def create(name: str, *, artifact_location: str | None, tags: object) -> str:
        asked.append(artifact_location)
        return "7"

    server: Any = SimpleNamespace(
        get_experiment_by_name=lambda name: None, create_experiment=create
    )
    assert experiment_of(server, "wsss", Store(tmp_path)) == "7"
    assert asked == [None]


def _size(folder: Path) -> int:
    found = 0
    for path in folder.glob("mlflow.db.partial*"):
        with suppress(FileNotFoundError):  # SQLite's journals come and go
            found += path.stat().st_size
    return found
