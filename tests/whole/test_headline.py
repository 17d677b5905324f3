"""`sweeps headline` as a person runs it: killed, resumed, tracked, and refused."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from commands import NARROW, SHRUNK, environment, options, process, sweeps, wsss
from mlflow_file import mlflow_runs

from wsss.data.voc import VocDataset

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # MLflow's and torch's own: commands run here
]

REPO = Path(__file__).parents[2]
NETWORK = {"iterations": 16, "batch_size": 4, "crop_size": 49, "test_scales": "[0.5]"}
EXPORT = ("--export", "train")


def words(data: Path, store: Path, *more: object) -> list[object]:
    where = ("--preset", "tiny", "--data", data, "--store", store)
    settings = [*options(SHRUNK | NARROW), *options(NETWORK, "--set-segmentation")]
    return ["headline", *where, *settings, *more]


def broken_off(command: list[str], line_with: str, how: signal.Signals) -> tuple[int, str]:
    """Send a signal to a command once it has printed such a line; return exit code and output."""
    output = ""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(COLUMNS="160", PYTHONUNBUFFERED="1"),
        cwd=REPO,
        start_new_session=True,
    ) as running:
        for line in running.stdout:
            if line_with in line and line_with not in output:
                os.killpg(running.pid, how)
            output += line
    return running.returncode, output


@pytest.fixture(scope="module")
def killed(
    drawn: Path, tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path
) -> dict[str, Any]:
    """Give the same command three times: Ctrl-C ends it, it is killed, it comes to its end.

    The one after the CAMs are trained, the other while DeepLab trains on plain CAMs.
    """
    store = tmp_path_factory.mktemp("headline")
    shutil.copy(mlflow_database, store)
    asked = words(drawn, store, "none", "masks", *EXPORT)
    command = process(*asked)
    interrupted = broken_off(command, "train CAM", signal.SIGINT)
    statuses = {run.status for run in mlflow_runs(store / "mlflow.db")}
    broken_off(command, "train DeepLab", signal.SIGKILL)
    kept = {p: p.stat().st_mtime_ns for p in store.rglob("*.npz") if "maps" in p.parts}
    return {
        "store": store,
        "asked": asked,
        "interrupted": interrupted,
        "statuses": statuses,
        "kept": kept,
        "again": sweeps(*asked, COLUMNS="160"),
    }


def test_ctrl_c_ends_a_headline_in_order_and_names_the_command_that_goes_on(
    killed: dict[str, Any],
) -> None:
    code, output = killed["interrupted"]
    assert code == 130
    assert "SIGINT: starting no more chains" in output
    printed = output.split("the same command resumes from here:\n")[1].splitlines()[0]
    assert shlex.split(printed) == process(*killed["asked"])
    assert "infer CAMs" not in output
    assert killed["statuses"] == {"KILLED"}


def test_a_killed_headline_goes_on_where_it_was(killed: dict[str, Any]) -> None:
    assert killed["again"].exit_code == 0, killed["again"].output
    assert len(killed["kept"]) == 16
    now = {p: p.stat().st_mtime_ns for p in killed["kept"]}
    assert now == killed["kept"]
    assert "infer CAMs" not in killed["again"].stdout
    assert "train CAM " not in killed["again"].stdout


def test_the_report_and_the_archive_are_where_the_command_says(killed: dict[str, Any]) -> None:
    output = killed["again"].stdout
    assert "the store has no ended sweep" in output
    assert "Ours (the paper)" in output, "the tables are printed"
    page = Path(output.split("report: ")[1].splitlines()[0])
    assert {path.name for path in page.parent.iterdir()} == {
        "headline.html",
        "headline.md",
        "headline.csv",
        "headline.tex",
        "headline.txt",
        "table.tex",
        "gallery.png",
    }
    (line,) = [line for line in output.splitlines() if "checked archive" in line]
    assert line.startswith("CAM: 10 predictions of train")
    assert Path(line.split("checked archive ")[1]).is_file()


def test_the_networks_are_named_for_pictures_of_ones_own(
    killed: dict[str, Any], drawn: Path, tmp_path: Path
) -> None:
    usage, *networks = killed["again"].stdout.split("pictures of your own: ")[1].splitlines()[:3]
    names = [line.split(": ")[0].strip() for line in networks]
    assert names == ["CAM", "true masks (supervised bound)"]
    (*words, folder), picture = shlex.split(usage.partition(", with")[0]), min(drawn.rglob("*.jpg"))
    assert (words[-3:], folder) == (["predict", "IMAGE", "--network"], "FOLDER")
    place = ("--network", networks[0].partition(": ")[2], "--out", tmp_path)
    assert wsss("predict", picture, *place).exit_code == 0
    assert (tmp_path / f"{picture.stem}_overlay.png").is_file()


def test_mlflow_has_a_run_per_network_with_a_usable_model(killed: dict[str, Any]) -> None:
    store: Path = killed["store"]
    networks = [path.parent for path in store.glob("mlartifacts/**/MLmodel")]
    assert len(networks) == 2
    for path in networks:
        network = mlflow.pytorch.load_model(str(path))
        assert network(torch.zeros(1, 3, 64, 64)).shape[:2] == (1, 21)
    found = mlflow_runs(store / "mlflow.db")
    (parent,) = (run for run in found if run.tags["wsss.role"] == "headline")
    assert [run.status for run in found] == ["FINISHED"] * (2 + 1)
    report = Path(parent.artifact_uri.removeprefix("file://")) / "report"
    assert (report / "headline.html").is_file()


def test_the_supervised_bound_is_refused_before_compute_if_a_mask_is_missing(
    drawn: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(drawn, tmp_path / "own"))
    extra = VocDataset(data).image_ids("train_aug")[-1]
    (data / f"SegmentationClassAug/{extra}.png").unlink()
    (data / f"Annotations/{extra}.xml").write_text("<a><object><name>cat</name></object></a>")
    done = sweeps(*words(data, tmp_path / "store", "none", "masks"))
    assert done.exit_code == 2
    assert f"1 of 16 images have no mask, first {extra}; add" in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "more", [["random_walk_crf"], ["none", "--set-segmentation", "test_crf=1"]]
)
def test_a_dense_crf_that_cannot_be_imported_is_refused_before_compute(
    drawn: Path, tmp_path: Path, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    done = sweeps(*words(drawn, tmp_path / "store", *more))
    assert done.exit_code == 2
    assert "the dense CRF needs pydensecrf2" in done.stderr
    assert not [*tmp_path.glob("store/*/*")]
