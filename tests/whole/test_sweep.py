"""Whole sweeps as a person runs them: finished, killed and resumed, tracked, and refused."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from commands import environment, options, process, sweeps
from filelock import FileLock
from mlflow_file import mlflow_runs
from outcomes import epochs, results
from waiting import wait_for

from wsss.data.drawn.folder import draw_voc

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TABLE = "controls-summed"
"""Of three trials."""
SETTINGS = {
    "train.epochs": 3,
    "train.crop_size": 64,
    "train.batch_size": 4,
    "labels.scales": "[1.0]",
    "network.batch_norm": "frozen",
    "train.lr": 0.05,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_voc(
        tmp_path_factory.mktemp("data") / "pictures", num_train=6, num_extra=6, num_val=1
    )


def words(data: Path, store: Path, *more: object) -> list[object]:
    where = ("--preset", "tiny", "--data", data, "--store", store)
    return ["run", TABLE, *where, *options(SETTINGS), *more]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which says what it imports."""
    watched = [command[0], "-X", "importtime", *command[1:]]
    return subprocess.run(
        watched, capture_output=True, text=True, timeout=240, env=environment(), check=False
    )


@pytest.fixture(scope="module")
def killed(
    pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[int]], dict[str, int], subprocess.CompletedProcess[str]]:
    """A sweep killed in the middle of a training, then run again: store, epochs at the kill, ..."""
    store = tmp_path_factory.mktemp("killed") / "store"
    command = process(*words(pictures, store, "--max-concurrent", "1"))
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    ) as driver:

        def is_in_second_training() -> bool:
            assert driver.poll() is None, "the sweep ended before it could be killed"
            return len(epochs(store)) > len(results(store)) >= 1

        wait_for(is_in_second_training, seconds=200)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before = epochs(store)
    written = {
        name: (store / "runs" / name / "done.json").stat().st_mtime_ns for name in results(store)
    }
    return store, before, written, run(command)


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


def test_a_killed_sweep_is_finished_by_the_same_command(killed: Any) -> None:
    store, _before, written, again = killed
    assert again.returncode == 0, again.stdout + again.stderr[-2000:]
    assert 1 <= len(written) < 3
    assert len(results(store)) == 3
    assert "missing" not in again.stdout.split(f"Table {TABLE}")[-1]
    said = [" left one trial", "starting Ray on this machine", "Ray is ready: ", "finished:"]
    said += [f"Table {TABLE}", "Cannot tell", "report: "]
    assert sorted(said, key=again.stdout.index) == said
    assert "\x1b" not in again.stdout  # a file


def test_the_process_that_drives_a_sweep_loads_torch_only_when_all_is_done(killed: Any) -> None:
    """For the network of the best cell, between the trials and the report's figures."""
    _, _, _, again = killed
    order = [line.rsplit("|", 1)[-1].strip() for line in again.stderr.splitlines()]
    at = {name: order.index(name) for name in ("ray.tune", "mlflow", "torch", "matplotlib")}
    assert max(at["ray.tune"], at["mlflow"]) < at["torch"] < at["matplotlib"]


@pytest.mark.filterwarnings("ignore")  # MLflow's and torch's own
def test_mlflow_has_a_run_per_trial_and_gives_the_best_ones_network_to_another_process(
    killed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, _, _ = killed
    runs = mlflow_runs(store / "mlflow.db")
    of_trials = {run.tags.get("wsss.run_id") for run in runs}
    assert of_trials == {None, *results(store)}, "none for the sweep's own"
    assert [run.status for run in runs] == ["FINISHED"] * (3 + 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # MLflow writes the address there
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    experiment = mlflow.get_experiment_by_name("wsss").experiment_id
    (model,) = mlflow.search_logged_models(experiment_ids=[experiment], output_format="list")
    weights = mlflow.pytorch.load_model(f"runs:/{model.source_run_id}/network").state_dict()
    tags = mlflow.get_run(model.source_run_id).data.tags
    run_id, cam_id = tags["wsss.run_id"], tags["wsss.cam_id"]
    scores = {name: found["miou_fixed"] for name, found in results(store).items()}
    assert scores[run_id] == max(scores.values())
    newest = max((store / "cams" / cam_id / "checkpoints").glob("*.pt"))
    trained = torch.load(newest, weights_only=True)["model"]
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in weights)


def test_a_finished_trial_is_not_run_again_and_a_broken_one_goes_on(killed: Any) -> None:
    store, before, written, _ = killed
    for name, at in written.items():
        assert (store / "runs" / name / "done.json").stat().st_mtime_ns == at
    after = epochs(store)
    broken = [name for name in before if len(before[name]) < 3]
    for name in broken:
        # Recorded epochs are never run from the start again: at most the last one is repeated.
        assert after[name][: len(before[name])] == before[name]
        assert after[name].count(1) == 1 or before[name] == [1]
    assert all(sorted(set(found)) == [1, 2, 3] for found in after.values())


def test_a_finished_sweep_trains_nothing_and_starts_neither_ray_nor_torch(
    killed: Any, pictures: Path
) -> None:
    store, _, _, _ = killed
    before = {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")}
    again = run(process(*words(pictures, store)))
    assert again.returncode == 0, again.stderr[-2000:]
    assert "3 of 3 trials done, 0 to run" in again.stdout
    assert not imported(again) & {"ray", "torch", "mlflow"}
    assert {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")} == before


def test_a_second_process_on_a_running_sweep_is_refused(killed: Any, pictures: Path) -> None:
    store, _, _, _ = killed
    (sweep,) = (path.parent for path in store.glob("sweeps/*/sweep.json"))
    with FileLock(sweep / "driver.lock").acquire(timeout=0):
        more = sweeps(*words(pictures, store, "--seeds", 2))
        sync = sweeps("sync", "--store", store, "--sweep", sweep.name)
        sync_all = sweeps("sync", "--store", store)
    assert more.exit_code == sync.exit_code == 2
    assert f"another process runs sweep {TABLE}-tiny" in more.stderr
    assert "status --watch" in more.stderr
    assert sync_all.exit_code == 0
    for each in (sync, sync_all):
        assert "it logs its results itself" in each.stderr
    assert len(results(store)) == 3
