"""A whole search as a person runs it: interrupted, resumed, extended, tracked, and refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.plan.search import split_halves
from sweeps.store.store import CamFolder
from wsss.data.drawn import draw_voc

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

REPO = Path(__file__).parents[1]
COMMAND = (
    "import typer; from sweeps.cli.search import search;"
    "app = typer.Typer(pretty_exceptions_enable=False); app.command()(search); app()"
)
DRAWS = "2"
"""A seed of which the second draw is by .9 points better than the first after an epoch, so
that nothing stops it early."""
SHRUNK = (
    "train.epochs=3", "train.crop_size=48", "train.min_long_side=48", "train.max_long_side=80",
    "train.batch_size=4", "network.fpn_channels=16", "network.atrous_channels=16",
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_voc(
        tmp_path_factory.mktemp("data") / "pictures", num_train=12, num_extra=4, num_val=1
    )


def command(data: Path, store: Path, *more: str, samples: int = 4) -> list[str]:
    settings = [word for setting in SHRUNK for word in ("--set", setting)]
    return [
        sys.executable, "-c", COMMAND, "--preset", "tiny", "--data", str(data), "--store",
        str(store), "--samples", str(samples), "--max-concurrent", "1", "--rng-seed", DRAWS,
        *settings, *more,
    ]  # fmt: skip


def environment(**extra: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "160"} | extra


def run(words: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, capture_output=True, text=True, timeout=300, env=environment(**extra), cwd=REPO,
        check=False,
    )  # fmt: skip


def history(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(store.glob("searches/*/trials/*"))
            if path.suffix == ".json"]  # fmt: skip


def trained(store: Path) -> dict[str, list[int]]:
    return {
        path.name: [record["epoch"] for record in CamFolder(path).epochs()]
        for path in (store / "cams").iterdir()
    }


def mlflow_runs(store: Path) -> list[dict[str, Any]]:
    """Read the search's experiment in a process of its own: importing MLflow warns."""
    script = (
        "import json, sys; from mlflow import MlflowClient; c = MlflowClient(sys.argv[1]);"
        "e = c.get_experiment_by_name('wsss-search');"
        "h = lambda r: [[m.step, m.value] for m in"
        " c.get_metric_history(r.info.run_id, 'objective/search_half')];"
        "print(json.dumps([dict(id=r.info.run_id, status=r.info.status, tags=r.data.tags,"
        " metrics=r.data.metrics, params=r.data.params, objective=h(r),"
        " artifacts=[a.path for a in c.list_artifacts(r.info.run_id)])"
        " for r in c.search_runs([e.experiment_id])]))"
    )
    words = [sys.executable, "-c", script, f"sqlite:///{store / 'mlflow.db'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def interrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search that got a Ctrl-C in its second training, then the same command again."""
    store = tmp_path_factory.mktemp("interrupted") / "store"
    words = command(pictures, store)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        cwd=REPO,
    ) as driver:  # fmt: skip
        deadline = time.monotonic() + 200
        while len(known := history(store)) < 2 or not known[1]["epochs"]:
            assert driver.poll() is None, "the search ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate(timeout=120)
    before = history(store), trained(store), driver.returncode, output, mlflow_runs(store)
    return {"store": store, "before": before, "again": run(words)}


def test_ctrl_c_ends_in_order_and_says_how_to_go_on(interrupted: Any) -> None:
    trials, _, code, output, runs = interrupted["before"]
    assert code == 130
    assert "SIGINT: starting no more trials" in output
    printed = output.split("the same command goes on from here:\n")[1].splitlines()[0]
    assert "--samples 4" in printed
    assert [known["status"] for known in trials] == ["finished", "running"]
    status = {found["tags"].get("wsss.search_trial"): found["status"] for found in runs}
    assert status == {"0": "FINISHED", "1": "KILLED", None: "KILLED"}


def test_the_same_command_finishes_what_was_interrupted_and_no_trial_twice(
    interrupted: Any,
) -> None:
    trials, epochs, *_ = interrupted["before"]
    store, again = interrupted["store"], interrupted["again"]
    assert again.returncode == 0, again.stdout + again.stderr
    after = history(store)
    assert after[0] == trials[0]
    assert after[1]["settings"] == trials[1]["settings"]
    assert [known["number"] for known in after] == [0, 1, 2, 3]
    assert len({known["cam_id"] for known in after}) == 4
    assert trained(store)[trials[0]["cam_id"]] == epochs[trials[0]["cam_id"]] == [1, 2, 3]
    # The second went on from its checkpoint: at most one epoch was trained twice.
    cam = trials[1]["cam_id"]
    assert trained(store)[cam][: len(epochs[cam])] == epochs[cam]
    assert len(trained(store)[cam]) <= after[1]["epochs"][-1]["epoch"] + 1


def test_every_judged_epoch_is_kept_with_settings_of_four_digits(interrupted: Any) -> None:
    for known in history(interrupted["store"]):
        epochs = [record["epoch"] for record in known["epochs"]]
        assert epochs == list(range(1, len(epochs) + 1))
        assert (known["status"] == "finished") == (epochs[-1] == 3)
        assert all(0 <= record["objective"] <= 100 for record in known["epochs"])
        for value in known["settings"].values():
            assert value == float(f"{value:.4g}")


def test_the_best_and_the_papers_setting_are_scored_on_the_held_out_half(
    interrupted: Any, pictures: Path
) -> None:
    store, again = interrupted["store"], interrupted["again"]
    (folder,) = (store / "searches").iterdir()
    search = json.loads((folder / "search.json").read_text())
    halves = split_halves((pictures / "ImageSets/Segmentation/train.txt").read_text().split())
    assert (search["search_half"], search["held_out_half"]) == halves
    held_out = json.loads((folder / "held_out.json").read_text())
    finished = {k["cam_id"]: k for k in history(store) if k["status"] == "finished"}
    reference = set(held_out) - set(finished)
    assert len(reference) == 1
    assert len(held_out) == 1 + min(3, len(finished))
    for cam in set(held_out) & set(finished):  # judged as in the search, at its threshold
        last = finished[cam]["epochs"][-1]
        assert held_out[cam]["objective"] == last["objective"]
        assert held_out[cam]["threshold"] == last["threshold"]
    assert trained(store)[reference.pop()] == [1, 2, 3]
    for row in held_out.values():
        assert f"{row['held_out']:.2f}" in again.stdout
    assert "This is a search, not a table" in again.stdout
    assert not (store / "runs").exists()
    assert not (store / "sweeps").exists()


def test_mlflow_has_a_run_per_trial_under_the_search(interrupted: Any) -> None:
    store = interrupted["store"]
    runs = {found["tags"].get("wsss.search_trial"): found for found in mlflow_runs(store)}
    parent = runs.pop(None)
    assert sorted(runs) == ["0", "1", "2", "3", "reference"]
    assert {found["status"] for found in (parent, *runs.values())} == {"FINISHED"}
    finished = [k for k in history(store) if k["status"] == "finished"]
    best = max(known["epochs"][-1]["objective"] for known in finished)
    assert parent["metrics"]["objective/best_so_far"] == pytest.approx(best)
    assert "objective/held_out_paper_setting" in parent["metrics"]
    assert parent["artifacts"] == ["report", "search.txt"]
    for found in runs.values():
        assert found["tags"]["mlflow.parentRunId"] == parent["id"]
    for known in history(store):
        found = runs[str(known["number"])]
        judged = [[record["epoch"], record["objective"]] for record in known["epochs"]]
        assert found["objective"] == judged
        stopped = str(known["status"] == "stopped").lower()
        assert found["tags"]["wsss.stopped_early"] == stopped
        for key, value in known["settings"].items():
            assert float(found["params"][key]) == value


def test_a_finished_search_trains_nothing_and_loads_nothing_heavy(
    interrupted: Any, pictures: Path
) -> None:
    store = interrupted["store"]
    before = {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")}
    words = command(pictures, store)
    again = run([words[0], "-X", "importtime", *words[1:]])
    assert again.returncode == 0, again.stderr
    assert "4 of 4 trials done, 0 to run" in again.stdout
    loaded = {line.split("|")[-1].strip() for line in again.stderr.splitlines()}
    assert "sweeps.run.driver" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "optuna"}
    assert {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")} == before


def test_a_larger_search_runs_only_what_is_new_and_stops_it_if_it_is_poor(
    interrupted: Any, pictures: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(interrupted["store"], store)
    shutil.rmtree(store / "ray")  # the history is enough
    known = history(store)
    for path, one in zip(sorted(store.glob("searches/*/trials/*.json")), known, strict=True):
        one["epochs"][0]["objective"] = 99.0  # so good that whatever comes next is poor
        path.write_text(json.dumps(one))
    before = {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")}
    larger = run(command(pictures, store, samples=5))
    assert larger.returncode == 0, larger.stdout + larger.stderr
    *old, new = history(store)
    assert old == known
    assert new["status"] == "stopped"
    assert [record["epoch"] for record in new["epochs"]] == [1]
    assert 3 not in trained(store)[new["cam_id"]]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    logged = [f for f in mlflow_runs(store) if f["tags"].get("wsss.search_trial") == "4"]
    assert [f["tags"]["wsss.stopped_early"] for f in logged] == ["true"]
    assert [f["status"] for f in logged] == ["FINISHED"]


def test_a_diverged_training_is_worth_nothing_and_does_not_end_the_search(
    pictures: Path, tmp_path: Path
) -> None:
    away = "http://127.0.0.1:9"  # the discard port: a tracking server that is away
    words = command(
        pictures, tmp_path / "store", "--space", "train.lr=1e35:1e36", "--set",
        "train.clip_norm=null", samples=1,
    )  # fmt: skip
    done = run(words, MLFLOW_TRACKING_URI=away)
    (known,) = history(tmp_path / "store")
    assert known["status"] == "diverged"
    assert "lower train.lr" in known["message"]
    assert "is not up to date" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--space", "transfer.lamda_s=0:1"), "did you mean transfer.lambda_s?"),
        (("--space", "transfer.lambda_s=0:1:log"), "starts above 0"),
        (("--objective", "worst"), "best, fixed"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_is_written(
    pictures: Path, tmp_path: Path, more: tuple[str, ...], named: str
) -> None:
    refused = run(command(pictures, tmp_path / "store", *more))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert named in refused.stderr
    assert not (tmp_path / "store").exists()
