"""A whole search in a bucket: interrupted, resumed on another machine, tracked, and refused."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BUCKET, keys
from click.testing import Result
from mlflow_file import mlflow_runs
from typer.testing import CliRunner

from sweeps.cli import app
from sweeps.plan.search import make_search, parse_space, split_halves
from sweeps.run.subjects.search import Draws
from sweeps.stages.stage import Place
from sweeps.stages.trial import search_trial
from sweeps.store.remote.mirror import Remote
from sweeps.store.store import CamFolder, Store
from wsss.data.drawn.folder import draw_voc
from wsss.identity import cam_id
from wsss.overrides import parse_assignments
from wsss.training.process import Process

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),  # MLflow's and Ray's own: commands run here
]

REPO = Path(__file__).parents[2]
DRAWS = "2"
"""A seed of which the second draw is by .9 points better than the first after an epoch, so that
nothing stops it early, and the third by .9 points worse than the second, so that it is stopped."""
STORE = f"s3://{BUCKET}/whole"
SHRUNK = (
    "train.epochs=3",
    "train.crop_size=48",
    "train.min_long_side=48",
    "train.max_long_side=80",
    "train.batch_size=4",
    "network.fpn_channels=16",
    "network.atrous_channels=16",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_voc(
        tmp_path_factory.mktemp("data") / "pictures", num_train=12, num_extra=4, num_val=1
    )


def command(data: Path, store: str | Path, *more: str) -> list[str]:
    settings = [word for setting in SHRUNK for word in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "sweeps",
        "search",
        "--preset",
        "tiny",
        "--data",
        str(data),
        "--store",
        str(store),
        "--samples",
        "3",
        "--max-concurrent",
        "1",
        "--rng-seed",
        DRAWS,
        *settings,
        *more,
    ]


def environment(mirror: Path) -> dict[str, str]:
    """Return the environment of the machine with this mirror of the bucket."""
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "160", "WSSS_MIRROR": str(mirror)}


def invoke(words: list[str], mirror: Path) -> Result:
    """Run a command in this process, which has loaded torch anyway."""
    changes = {"COLUMNS": "160", "WSSS_MIRROR": str(mirror), "MLFLOW_TRACKING_URI": None}
    return CliRunner(env=changes).invoke(app, words[3:])


def history(store: Path) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text())
        for path in sorted(store.glob("searches/*/trials/*"))
        if path.suffix == ".json"
    ]


def trained(store: Path) -> dict[str, list[int]]:
    return {
        path.name: [record["epoch"] for record in CamFolder(path).epochs()]
        for path in (store / "cams").iterdir()
    }


def unbroken(data: Path, store: Path) -> tuple[list[Any], Any]:
    """Return what this search comes to in one process, without Ray: draw, train, score."""
    search, _ = make_search(
        parse_space([]),
        preset="tiny",
        data=data,
        weights=None,
        overrides=parse_assignments(list(SHRUNK)),
        rng_seed=int(DRAWS),
    )
    draws, trials, held_out = Draws(search, Store(store), 3, lambda known: None), [], {}
    for _ in range(4):
        known = draws.next()  # None: and the base
        config = search.config(known.settings if known else {})
        last: dict[str, float] = {}
        place = Place(Store(store), data, rank=Process())
        for record in search_trial(config, "best", place, held_out=True):
            last = record
            if known and draws.reported(known, record):
                break
        if "held_out" in last:
            held_out[cam_id(config)] = {k: last[k] for k in ("objective", "threshold", "held_out")}
        if known:
            trials.append(asdict(known))
    return trials, held_out


def held_out_in(store: Path) -> Any:
    (path,) = store.glob("searches/*/held_out.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def interrupted(
    port: int, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A search that got a Ctrl-C in its second training, then the same command elsewhere."""
    root = tmp_path_factory.mktemp("interrupted")
    first, second = root / "first", root / "second"
    words = command(pictures, STORE)
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(first),
        cwd=REPO,
    ) as driver:
        deadline = time.monotonic() + 200
        while len(known := history(first)) < 2 or not known[1]["epochs"]:
            assert driver.poll() is None, "the search ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        driver.send_signal(signal.SIGINT)
        output, _ = driver.communicate(timeout=120)
    before = (
        history(first),
        trained(first),
        driver.returncode,
        output,
        mlflow_runs(first / "mlflow.db"),
    )
    left = keys(port, "whole")
    return {"store": second, "before": before, "left": left, "again": invoke(words, second)}


def test_ctrl_c_ends_in_order_and_says_how_to_go_on(interrupted: Any) -> None:
    trials, _, code, output, runs = interrupted["before"]
    assert code == 130
    assert "SIGINT: starting no more trials" in output
    printed = output.split("the same command resumes from here:\n")[1].splitlines()[0]
    assert "--samples 3" in printed
    assert [known["status"] for known in trials] == ["finished", "running"]
    status = {found.tags.get("wsss.search_trial"): found.status for found in runs}
    assert status == {"0": "FINISHED", "1": "KILLED", None: "KILLED"}
    assert not [key for key in interrupted["left"] if key.startswith("leases/")]


def test_on_another_machine_the_same_command_comes_to_what_an_unbroken_search_does(
    interrupted: Any, port: int, pictures: Path, tmp_path: Path
) -> None:
    store, again = interrupted["store"], interrupted["again"]
    assert again.exit_code == 0, again.output
    assert "1 of 3 trials done, 2 to run" in again.stdout
    after, held_out = history(store), held_out_in(store)
    assert [known["status"] for known in after] == ["finished", "finished", "stopped"]
    assert (after, held_out) == unbroken(pictures, tmp_path / "unbroken")
    Remote(STORE, tmp_path / "third").pull_folder("searches")
    assert (history(tmp_path / "third"), held_out_in(tmp_path / "third")) == (after, held_out)
    assert not [key for key in keys(port, "whole") if key.startswith("leases/")]


def test_no_trial_is_trained_twice_and_a_stopped_one_no_further(interrupted: Any) -> None:
    trials, epochs, *_ = interrupted["before"]
    store = interrupted["store"]
    after = history(store)
    assert after[0] == trials[0]
    assert epochs[trials[0]["cam_id"]] == [1, 2, 3]
    assert f"cams/{trials[0]['cam_id']}/done.json" in interrupted["left"]
    # The second went on from its checkpoint: at most one epoch was trained twice.
    cam = trials[1]["cam_id"]
    assert trained(store)[cam] == [1, 2, 3]
    assert trained(store)[cam][: len(epochs[cam])] == epochs[cam]
    assert 3 not in trained(store)[after[2]["cam_id"]]


def test_every_judged_epoch_is_kept_with_settings_of_four_digits(interrupted: Any) -> None:
    for known in history(interrupted["store"]):
        epochs = [record["epoch"] for record in known["epochs"]]
        assert epochs == list(range(1, len(epochs) + 1))
        assert (known["status"] == "finished") == (epochs[-1] == 3)
        assert all(0 <= record["objective"] <= 100 for record in known["epochs"])
        for value in known["settings"].values():
            assert value == float(f"{value:.4g}")


def test_the_best_and_the_base_are_scored_on_the_held_out_half(
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


def test_mlflow_has_a_run_per_trial_under_the_search(interrupted: Any, port: int) -> None:
    store = interrupted["store"]
    tracked = mlflow_runs(store / "mlflow.db")
    runs = {found.tags.get("wsss.search_trial"): found for found in tracked}
    parent = runs.pop(None)
    assert len(runs) == len(tracked) - 1
    assert runs.keys() == {"0", "1", "2", "reference"}
    assert {found.status for found in tracked} == {"FINISHED"}
    finished = [k for k in history(store) if k["status"] == "finished"]
    best = max(known["epochs"][-1]["objective"] for known in finished)
    assert parent.last("objective/best_so_far") == pytest.approx(best)
    assert "objective/held_out_base" in parent.metrics
    artifacts = parent.artifact_uri.removeprefix(f"{STORE}/")
    logged = {
        key.removeprefix(f"{artifacts}/").split("/")[0]
        for key in keys(port, "whole")
        if artifacts in key
    }
    assert logged == {"report", "search.txt"}
    for found in runs.values():
        assert found.tags["mlflow.parentRunId"] == parent.id
    for known in history(store):
        found = runs[str(known["number"])]
        judged = [(record["epoch"], record["objective"]) for record in known["epochs"]]
        assert found.metrics["objective/search_half"] == judged
        stopped = str(known["status"] == "stopped").lower()
        assert found.tags["wsss.stopped_early"] == stopped
        for key, value in known["settings"].items():
            assert float(found.params[key]) == value


def test_a_finished_search_trains_nothing_and_loads_nothing_heavy(
    interrupted: Any, pictures: Path
) -> None:
    store = interrupted["store"]
    before = {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")}
    words = command(pictures, STORE)
    again = subprocess.run(
        [words[0], "-X", "importtime", *words[1:]],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(store),
        cwd=REPO,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "3 of 3 trials done, 0 to run" in again.stdout
    loaded = {line.split("|")[-1].strip() for line in again.stderr.splitlines()}
    assert "sweeps.run.driver" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "optuna"}
    assert {path: path.stat().st_mtime_ns for path in store.glob("cams/*/*")} == before


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
    refused = invoke(command(pictures, tmp_path / "store", *more), tmp_path)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: ")
    assert named in refused.stderr
    assert not (tmp_path / "store").exists()
