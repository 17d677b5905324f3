"""A sweep as one file: what is in it, that it is a store, and that it is the same everywhere."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import Result
from commands import sweeps
from made_up.bucket_server import BUCKET
from made_up.finished import fill, finished_sweep

from sweeps.api import open_results
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import save_sweep
from sweeps.report.tables.model import build_report
from sweeps.store.store import Store, open_store
from wsss.basics.printable import command

SWEEP = finished_sweep(("III", "VI"), 1)
FAILED, MISSING, *OTHERS = SWEEP.plan.trials


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Tables III and VI; one trial has failed, one is missing. One has a checkpoint."""
    store = Store(tmp_path_factory.mktemp("lab") / "results")
    fill_some(store)
    return store


def fill_some(store: Store) -> None:
    fill(store, SWEEP, lambda t: None if t in (FAILED, MISSING) else 0.6, num_images=6)
    store.run(FAILED.run_id).fail("diverged", "loss is NaN", "trace")
    checkpoint = store.cam(OTHERS[0].cam_id).checkpoints / "epoch_0003.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"weights")


def export(store: Store, file: Path, *words: str) -> Result:
    return sweeps("export", file, "--store", store.address, *words)


@pytest.fixture(scope="module")
def archived(store: Store) -> tuple[Path, str]:
    """The store's archive, and what was printed."""
    file = store.root.parent / "out" / "a.zip"
    done = export(store, file)
    assert done.exit_code == 0, done.output
    return file, done.output


def test_an_archive_has_report_rows_configurations_and_a_manifest_of_all(
    archived: tuple[Path, str],
) -> None:
    file, said = archived
    assert f"{len(OTHERS)} finished" in said
    assert "next: " + command("sweeps", "verify", file) in said
    with ZipFile(file) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        names = {*archive.namelist()} - {"manifest.json"}
        assert manifest["files"] == {
            name: hashlib.sha256(archive.read(name)).hexdigest() for name in names
        }
        rows = list(csv.DictReader(archive.read("trials.csv").decode().splitlines()))
        readme = archive.read("README.txt").decode()
    report = {f"report/report.{ending}" for ending in ("html", "md", "csv", "tex", "txt")}
    assert names >= {*report, "report/table.tex", "requirements.lock", "CITATION.cff"}
    assert "wsss train-cam --config runs/<id>/config.json --run again" in readme
    assert names >= {f"runs/{trial.run_id}/config.json" for trial in SWEEP.plan.trials}
    assert names >= {f"counts/{counts_id(trial.config)}/counts.npz" for trial in OTHERS}
    assert not any("checkpoints" in name for name in names)
    assert [row["run_id"] for row in rows] == [trial.run_id for trial in SWEEP.plan.trials]
    assert manifest["command"].startswith("sweeps run III VI --preset tiny")
    assert manifest["command"] in readme
    assert str(file.parent) not in readme


def test_equal_results_give_equal_bytes_wherever_they_lie_and_hidden_copies_stay_out(
    store: Store, archived: tuple[Path, str], tmp_path: Path
) -> None:
    copy = Store(tmp_path / "copy")
    shutil.copytree(store.root, copy.root)
    (copy.cam(OTHERS[0].cam_id).path / "epochs" / "._0001.json").write_bytes(b"\0")
    assert export(copy, tmp_path / "b.zip").exit_code == 0
    assert archived[0].read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_unpacked_archive_is_a_store_of_the_tables_that_were_named(
    store: Store, tmp_path: Path
) -> None:
    assert export(store, tmp_path / "a.zip", "VI", "--checkpoints").exit_code == 0
    with ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "there")
    results = open_results(tmp_path / "there")
    assert results.sweep.table_names == ("VI",)
    ours, theirs = (
        build_report(results.sweep, each).tables[0].cells for each in (results.store, store)
    )
    assert {name: cell.mean for name, cell in ours.items()} == {
        name: cell.mean for name, cell in theirs.items()
    }
    there = set((tmp_path / "there" / "cams").glob("*/checkpoints/epoch_0003.pt"))
    in_vi = {trial.cam_id for trial in results.sweep.plan.trials}
    assert len(there) == (OTHERS[0].cam_id in in_vi)


def test_a_file_of_somebody_else_stays(store: Store, tmp_path: Path) -> None:
    (tmp_path / "notes.zip").write_text("mine")
    done = export(store, tmp_path / "notes.zip")
    assert (done.exit_code, (tmp_path / "notes.zip").read_text()) == (2, "mine")
    assert "name another file" in done.output
    done = export(store, tmp_path / "VI")
    assert (done.exit_code, "a file that ends in .zip" in done.output) == (2, True)
    assert not (tmp_path / "VI").exists()


def test_a_file_that_goes_or_never_ends_is_named(store: Store, tmp_path: Path) -> None:
    copy, file = Store(tmp_path / "copy"), tmp_path / "a.zip"
    shutil.copytree(store.root, copy.root)
    link = copy.cam(OTHERS[0].cam_id).path / "attempts" / "0001.json"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "gone")
    done = export(copy, file)
    assert (done.exit_code, "removed during the export" in done.output) == (2, True), done.output
    link.unlink()
    os.mkfifo(link)
    done = export(copy, file)
    assert (done.exit_code, f"{link}: a pipe" in done.stderr) == (2, True), done.output
    assert not file.exists()


@pytest.mark.usefixtures("port", "mirror")
def test_a_sweep_in_a_bucket_is_exported_from_another_machine(
    archived: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = open_store(f"s3://{BUCKET}/lab")
    fill_some(there)
    save_sweep(there, SWEEP)
    for folder in ("cams", "counts", "runs", "sweeps"):
        there.folder(folder).push()
    monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "other"))
    done = export(there, tmp_path / "a.zip", "--checkpoints")
    assert done.exit_code == 0, done.output
    with ZipFile(tmp_path / "a.zip") as ours, ZipFile(archived[0]) as theirs:
        more = {*ours.namelist()} - {*theirs.namelist()}
        assert more == {f"cams/{OTHERS[0].cam_id}/checkpoints/epoch_0003.pt"}
        assert len(ours.namelist()) == len(theirs.namelist()) + 1
