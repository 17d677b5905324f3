"""`sweeps calibrate` as a person runs it, on drawn pictures: it runs, and calibrates nothing.

The tracking server is away, as it may be from any sweep.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SETTINGS = (
    "train.epochs=1", "train.crop_size=48", "train.batch_size=4", "train.min_long_side=48",
    "train.max_long_side=80", "labels.scales=[0.5]",
)  # fmt: skip


AWAY = "http://127.0.0.1:9"
"""The discard port: nobody listens."""


def run(*words: str, mlflow: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "MLFLOW_TRACKING_URI": mlflow},
    )  # fmt: skip


def calibrate(drawn: Path, store: Path) -> subprocess.CompletedProcess[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return run(
        "-X", "importtime", "-m", "sweeps", "calibrate", "--preset", "tiny", "--data", str(drawn),
        "--store", str(store), *settings, mlflow=AWAY,
    )  # fmt: skip


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


def tags(uri: str) -> dict[str, dict[str, str]]:
    """Of the sweep's MLflow runs by role, read in a process of its own: importing MLflow warns."""
    script = (
        "import json, sys; from mlflow import MlflowClient; c = MlflowClient(sys.argv[1]);"
        "e = c.get_experiment_by_name('wsss');"
        "print(json.dumps([r.data.tags | {'status': r.info.status}"
        " for r in c.search_runs([e.experiment_id])]))"
    )
    done = run("-c", script, uri, mlflow=uri)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
    by_role = {run_tags["wsss.role"]: run_tags for run_tags in found}
    assert len(by_role) == len(found)
    return by_role


def test_on_drawn_pictures_without_mlflow_it_calibrates_nothing_is_synced_later_and_resumes(
    drawn: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = calibrate(drawn, store)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "sweep calibrate-tiny-voc-" in done.stdout
    assert "Calibration: CALIBRATES NOTHING HERE" in done.stdout
    assert "training images: train_aug, 16 images" in done.stdout
    assert "network.backbone resnet10_narrow (IRN: resnet50)" in done.stdout
    assert "REPRODUCE" not in done.stdout
    assert "48.3" not in done.stdout
    (folder,) = (store / "sweeps").iterdir()
    written = json.loads((folder / "calibration.json").read_text())
    assert written["outcome"] == "calibrates nothing here"
    assert "CALIBRATES NOTHING HERE" in (folder / "calibration.txt").read_text()
    assert "calibrates nothing here" in (folder / "report" / "report.md").read_text()

    assert "not up to date" in done.stdout
    assert f"; then give `sweeps sync --store {store}`" in " ".join(done.stdout.split())
    back = f"sqlite:///{tmp_path / 'back.db'}"
    synced = run("-m", "sweeps", "sync", "--store", str(store), mlflow=back)
    assert synced.returncode == 0, synced.stderr
    found = tags(back)
    assert found.keys() == {"sweep", "trial"}
    assert found["sweep"]["wsss.calibration"] == "calibrates nothing here"
    assert {run_tags["status"] for run_tags in found.values()} == {"FINISHED"}

    again = calibrate(drawn, store)
    assert again.returncode == 0
    assert "1 of 1 trials done, 0 to run" in again.stdout
    assert "CALIBRATES NOTHING HERE" in again.stdout
    assert not imported(again) & {"ray", "torch"}
