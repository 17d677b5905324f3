"""The judges of `make cluster-test` can say no: they are tried on results that differ."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

TEST = Path(__file__).parents[2] / "cluster" / "test"
sys.path.append(str(TEST))

import compare  # noqa: E402
import hosts  # noqa: E402


def store(root: Path, *, loss: float = 0.5, miou: float = 11.0, seconds: float = 1.0) -> Path:
    """A store with one result and its training of one epoch."""
    run, cam = root / "runs" / "r", root / "cams" / "c"
    run.mkdir(parents=True)
    (cam / "epochs").mkdir(parents=True)
    (run / "done.json").write_text(json.dumps({"miou": miou, "train_seconds": seconds}))
    record = {"epoch": 1, "loss": loss, "seconds": seconds}
    (cam / "epochs" / "0001.json").write_text(json.dumps(record))
    return root


def tracking(empty: Path, database: Path, *, loss: float = 0.5, status: str = "FINISHED") -> str:
    """An MLflow database with a sweep's run and a trial's."""
    uri = f"sqlite:///{shutil.copy(empty, database)}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("sweeps", artifact_location=str(database.parent))
    for tags in ({}, {"wsss.run_id": "r"}):
        run = client.create_run(experiment, tags=tags, run_name="x").info.run_id
        client.log_metric(run, "loss", loss, step=1)
        client.log_metric(run, "seconds", float(len(database.name)), step=1)  # differs, and may
        client.set_terminated(run, status)
    return uri


def test_stores_may_differ_in_times_alone(tmp_path: Path) -> None:
    ours, later = store(tmp_path / "a"), store(tmp_path / "later", seconds=9.0)
    assert compare.equal_stores(ours, later) == "1 results and 1 epochs"
    more, empty = store(tmp_path / "more"), tmp_path / "empty"
    (more / "runs" / "s").mkdir()
    (more / "runs" / "s" / "done.json").write_text("{}")
    for one, other, told in (
        (ours, store(tmp_path / "loss", loss=0.25), "on the cluster"),
        (ours, store(tmp_path / "miou", miou=12.0), "on the cluster"),
        (ours, more, "only in one of the two: s"),
        (empty, empty, "nothing"),
    ):
        with pytest.raises(hosts.HostError, match=told):
            compare.equal_stores(one, other)


@pytest.mark.filterwarnings("ignore")  # MLflow warns of its own database library
def test_mlflow_servers_are_compared_run_by_run(mlflow_database: Path, tmp_path: Path) -> None:
    made = partial(tracking, mlflow_database)
    ours = made(tmp_path / "ours.db")
    assert "2 runs" in compare.equal_tracking(ours, made(tmp_path / "same-as-ours.db"))
    with pytest.raises(hosts.HostError, match="MLflow/r/metrics/loss"):
        compare.equal_tracking(made(tmp_path / "other.db", loss=0.25), ours)
    killed = made(tmp_path / "killed.db", status="KILLED")
    with pytest.raises(hosts.HostError, match="KILLED"):
        compare.equal_tracking(killed, killed)


def test_a_folder_with_files_in_it_is_never_taken_as_scratch(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = subprocess.run(
        [sys.executable, str(TEST / "two_hosts.py"), "--scratch", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert (tmp_path / "mine").read_text() == "precious"
