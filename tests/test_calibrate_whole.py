"""`sweeps calibrate` as a person runs it: its training does not learn, and then is trained on.

On drawn pictures, so it calibrates nothing. The tracking server is away the second time, as it may
be from any sweep.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_file import MlflowRun, mlflow_runs
from rich.console import Console

from sweeps.evidence.calibration import Outcome, read
from sweeps.plan.sweep import load_sweep
from sweeps.report.live.status import show_status
from sweeps.store.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SETTINGS = (
    "train.epochs=3", "train.crop_size=48", "train.batch_size=4", "train.min_long_side=48",
    "train.max_long_side=80", "train.lr=1e-12", "labels.scales=[0.5]",
)  # fmt: skip
CELL = "calibrate[B0] seed 0"
AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
"""The discard port: nobody listens."""


def run(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=240, check=False,
        env=clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "400"} | extra,
    )  # fmt: skip


def calibrate(
    drawn: Path, store: Path, *more: str, **extra: str
) -> subprocess.CompletedProcess[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return run(
        "-X", "importtime", "-m", "sweeps", "calibrate", "--preset", "tiny", "--data", str(drawn),
        "--store", str(store), *settings, "--prior-warns-after", "5", *more, **extra,
    )  # fmt: skip


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


def status_of(store: Store) -> str:
    console = Console(file=io.StringIO(), width=300, color_system=None)
    show_status(console, store, load_sweep(store), by_trial=False, every=None)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def report_of(store: Path) -> str:
    (report,) = store.glob("sweeps/*/report/report.txt")
    return " ".join(report.read_text().split())


def tracked(store: Path) -> dict[str, MlflowRun]:
    """Return MLflow's runs by their role."""
    found = mlflow_runs(store / "mlflow.db")
    by_role = {run.tags["wsss.role"]: run for run in found}
    assert len(by_role) == len(found)
    return by_role


def test_a_training_that_does_not_learn_is_warned_of_then_failed_then_trained_on_if_asked(
    drawn: Path, tmp_path: Path
) -> None:
    # Twelve iterations: three epochs of four batches. Ended at the tenth, after two checkpoints.
    store = tmp_path / "store"
    failed = calibrate(drawn, store, "--prior-fails-after", "10")
    assert failed.returncode == 1, failed.stdout + failed.stderr[-2000:]
    check_what_is_said_of_a_failure(failed.stdout.splitlines())
    assert f"failed: {CELL}: not learning: not clearly below" in status_of(Store(store))
    meaning = "What the failures mean not learning: L_cls was still that of the label"
    assert meaning in report_of(store)
    trial = tracked(store)["trial"]
    assert trial.status == "FAILED"
    assert trial.tags["wsss.failure"].startswith(
        "not learning: not clearly below the label prior after 10"
    )
    assert "wsss.warning" not in trial.tags

    on = calibrate(drawn, store, "--retry-failed", "--prior-fails-after", "0", **AWAY)
    assert on.returncode == 0, on.stdout + on.stderr[-2000:]
    assert "at the label prior" in on.stdout, "the table marks the figure"
    assert {len(list(path.iterdir())) for path in store.glob("cams/*/epochs")} == {3}
    warning = f"{CELL}: not clearly below the label prior after 5 iterations"
    shown = status_of(Store(store))
    assert "at the prior" in shown
    assert f"warning: {warning}" in shown
    assert warning in report_of(store)
    check_that_it_calibrates_nothing(on.stdout, store)

    assert "not up to date" in on.stdout
    given = re.search(r"; then give `(\S+) (.* sync .*)`", on.stdout)
    assert given, on.stdout
    assert tracked(store)["trial"] == trial
    synced = run(*shlex.split(given[2]))
    assert synced.returncode == 0, synced.stderr
    found = tracked(store)
    assert found.keys() == {"sweep", "trial"}
    assert found["sweep"].tags["wsss.calibration"] == "calibrates nothing here"
    assert {run.status for run in found.values()} == {"FINISHED"}
    assert (
        found["trial"]
        .tags["wsss.warning"]
        .startswith("not clearly below the label prior after 5 iterations")
    )
    assert "wsss.failure" not in found["trial"].tags

    again = calibrate(drawn, store)
    assert again.returncode == 0
    assert "1 of 1 trial done, 0 to run" in again.stdout
    assert "CALIBRATES NOTHING HERE" in again.stdout
    assert not imported(again) & {"ray", "torch"}


def check_what_is_said_of_a_failure(lines: list[str]) -> None:
    def at(start: str) -> int:
        return next(i for i, line in enumerate(lines) if line.startswith(start))

    prior = "not clearly below the label prior after"
    warned = at(f"warning: {CELL}: {prior} 5 iterations: L_cls is ")
    failed = at(f"{CELL}: not learning: {prior} 10 iterations: L_cls is ")
    assert warned < failed < at("MLflow: "), "said when it happens"
    assert "--prior-fails-after (now 10 iterations; 0: never)" in lines[failed]


def check_that_it_calibrates_nothing(output: str, store: Path) -> None:
    assert "sweep calibrate-tiny-voc-" in output
    assert "Calibration: CALIBRATES NOTHING HERE" in output
    assert "training images: train_aug, 16 images" in output
    assert "network.backbone resnet10_narrow (IRN: resnet50)" in output
    assert "REPRODUCE" not in output
    assert "48.3" not in output
    (folder,) = (store / "sweeps").iterdir()
    written = read(Store(store), folder.name)
    assert written is not None
    assert written.outcome is Outcome.calibrates_nothing
    assert "CALIBRATES NOTHING HERE" in (folder / "calibration.txt").read_text()
    assert "calibrates nothing here" in (folder / "report" / "report.md").read_text()
