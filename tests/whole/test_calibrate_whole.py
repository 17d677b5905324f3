"""`sweeps calibrate` as a person runs it: its training does not learn, and then is trained on.

On drawn pictures, so it calibrates nothing, and on a machine where nothing is as usual. The
tracking server is away the second time, as it may be from any sweep.
"""

import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from commands import SHRUNK, options
from made_up.finished import status_of
from made_up.machines import Machine, environment, stranger
from mlflow_file import MlflowRun, mlflow_runs

from sweeps.plan.sweep import load_sweep
from sweeps.store.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SETTINGS = SHRUNK | {"train.epochs": 3, "train.lr": 1e-12}
CELL = "calibrate[B0] seed 0"
AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
"""The discard port: nobody listens."""


@pytest.fixture
def machine(drawn: Path) -> Iterator[Machine]:
    """A stranger without a home in an odd folder of its own, a long TMPDIR, a Ray elsewhere."""
    folder = Path(tempfile.mkdtemp(prefix="it's odd #?%41&=é, and too long for sockets "))
    shutil.copytree(drawn, folder / "voc")
    folder.chmod(0o777)
    changes = environment(
        TMPDIR=str(folder),
        RAY_ADDRESS="10.255.255.1:6379",
        LC_ALL="C",
        COLUMNS="400",
        PYTHONIOENCODING="latin-1",
    )
    changes.pop("MLFLOW_TRACKING_URI", None)
    yield Machine(folder, folder / "st", folder / "voc", changes, "latin-1", stranger())
    shutil.rmtree(folder)


def calibrate(machine: Machine, *more: str, code: int = 0, **extra: str) -> str:
    """Return what the command prints to standard output."""
    where = ("--preset", "tiny", "--data", "voc", "--store", "st", "--prior-warns-after", "5")
    there = replace(machine, environment=machine.environment | extra)
    done = there.run("sweeps", "calibrate", *where, *options(SETTINGS), *more)
    printed, errors = (said.decode(machine.encoding) for said in (done.stdout, done.stderr))
    assert done.returncode == code, printed + errors[-2000:]
    return printed


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
    machine: Machine,
) -> None:
    # Twelve iterations: three epochs of four batches. Ended at the tenth, after two checkpoints.
    store = machine.store
    printed = calibrate(machine, "--prior-fails-after", "10", code=1)
    check_what_is_said_of_a_failure(printed.splitlines())
    assert f"failed: {CELL}: not learning: not clearly below" in status_of(
        Store(store), load_sweep(Store(store))
    )
    meaning = "What the failures mean not learning: L_cls was still that of the label"
    assert meaning in report_of(store)
    trial = tracked(store)["trial"]
    assert trial.status == "FAILED"
    assert trial.tags["wsss.failure"].startswith(
        "not learning: not clearly below the label prior after 10"
    )
    assert "wsss.warning" not in trial.tags

    on = calibrate(machine, "--retry-failed", "--prior-fails-after", "0", **AWAY)
    assert "at the label prior" in on, "the table marks the figure"
    assert {len(list(path.iterdir())) for path in store.glob("cams/*/epochs")} == {3}
    warning = f"{CELL}: not clearly below the label prior after 5 iterations"
    shown = status_of(Store(store), load_sweep(Store(store)))
    assert "at the prior" in shown
    assert f"warning: {warning}" in shown
    assert warning in report_of(store)
    check_that_it_calibrates_nothing(on, store)

    assert "not up to date" in on
    given = re.search(r"; then run `\S+ -m (.* sync .*)`", on)
    assert given, on
    assert tracked(store)["trial"] == trial
    assert "mlflow.db is up to date" in machine.text(*shlex.split(given[1]))
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

    left = {path.name for path in machine.folder.iterdir()}
    assert {"st", "voc"} <= left
    assert not [name for name in left if name.startswith(("~", "%", "ray"))]


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
    (folder,) = (store / "sweeps").iterdir()
    assert "CALIBRATES NOTHING HERE" in (folder / "calibration.txt").read_text()
    assert "calibrates nothing here" in (folder / "report" / "report.md").read_text()
