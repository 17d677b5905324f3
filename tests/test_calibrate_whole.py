"""`sweeps calibrate` as a person runs it, on drawn pictures: it runs, and calibrates nothing."""

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


def calibrate(drawn: Path, store: Path) -> subprocess.CompletedProcess[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sweeps", "calibrate", "--preset", "tiny",
         "--data", str(drawn), "--store", str(store), *settings],
        capture_output=True, text=True, timeout=240, check=False,
        env=clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )  # fmt: skip


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


def tags(store: Path) -> dict[str, str]:
    """Of the sweep's MLflow run, read in a process of its own: importing MLflow warns."""
    script = (
        "import json, sys; from mlflow import MlflowClient; c = MlflowClient(sys.argv[1]);"
        "e = c.get_experiment_by_name('wsss');"
        "(r,) = c.search_runs([e.experiment_id], \"tags.`wsss.role` = 'sweep'\");"
        "print(json.dumps(r.data.tags | {'status': r.info.status}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{store / 'mlflow.db'}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_on_drawn_pictures_it_runs_to_the_end_says_that_it_calibrates_nothing_and_resumes(
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
    found = tags(store)
    assert found["wsss.calibration"] == "calibrates nothing here"
    assert found["status"] == "FINISHED"

    again = calibrate(drawn, store)
    assert again.returncode == 0
    assert "1 of 1 trials done, 0 to run" in again.stdout
    assert "CALIBRATES NOTHING HERE" in again.stdout
    assert not imported(again) & {"ray", "torch", "mlflow"}
