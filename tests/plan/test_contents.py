"""What a store holds, and removing it: through the commands `sweeps list` and `sweeps rm`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from commands import environment, process
from commands import sweeps as given
from made_up.bucket_server import BUCKET
from made_up.finished import cell, fill, finished_sweep
from made_up.planned import planned_headline

from sweeps.cli.service.store import rm
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.chains.headline import save_headline
from sweeps.plan.contents import plan_removal
from sweeps.plan.cost import Measured, read_measured
from sweeps.plan.states import read_metrics
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.document import Records
from sweeps.report.formats.csv_file import records_text
from sweeps.report.tables.closing import closing
from sweeps.report.tables.model import build_report
from sweeps.run.budget import cost_of
from sweeps.run.driver import driving
from sweeps.stages.guard import is_half_trained
from sweeps.store.errors import StoreError
from sweeps.store.remote.mirror import Remote
from sweeps.store.rooms import STAGES, Driven
from sweeps.store.store import Store, read_json, write_json


def sweeps(store: Store, *words: str) -> Result:
    return given(*words, "--store", store.root, COLUMNS="200")


def listed(store: Store) -> list[dict[str, Any]]:
    return json.loads(sweeps(store, "list", "--json").output)


def names(store: Store, room: str) -> set[str]:
    return {path.name for path in (store.root / room).iterdir()}


def measured(store: Store) -> list[Measured]:
    return read_measured(store, read_metrics(store), {})[0]


@pytest.fixture(scope="module")
def vi() -> Sweep:
    return finished_sweep(("VI",), 1)


@pytest.fixture(scope="module")
def iv() -> Sweep:
    return finished_sweep(("IV",), 1)


@pytest.fixture(scope="module")
def best(vi: Sweep) -> Trial:
    """The best trial of table VI, which table IV does not have."""
    return cell(vi, "no,yes")


@pytest.fixture
def store(tmp_path: Path, vi: Sweep, iv: Sweep, best: Trial) -> Store:
    """Table VI with one trial of four missing, newer; table IV, which shares IV-none = VI-none."""
    store = Store(tmp_path / "results")
    fill(store, iv, lambda trial: 0.5)
    missing = cell(vi, "yes,yes")
    fill(store, vi, lambda t: None if t == missing else 0.8 if t == best else 0.5)
    os.utime(store.sweep(iv.name) / "sweep.json", (1e9, 1e9))
    for trial in (*iv.plan.trials, *vi.plan.trials):
        if trial != missing:
            counts = store.folder(f"counts/{counts_id(trial.config)}")
            counts.finish({"made_from": {"cams": trial.cam_id}})
    return store


def test_the_list_has_each_sweep_the_newest_first(
    store: Store, vi: Sweep, iv: Sweep, best: Trial
) -> None:
    newest, oldest = listed(store)
    assert (newest["name"], oldest["name"]) == (vi.name, iv.name)
    assert (newest["tables"], newest["data"], newest["preset"]) == (["VI"], "made-up", "tiny")
    assert (newest["done"], newest["total"], newest["best"]) == (3, 4, "VI[no,yes]")
    assert newest["best_miou"] == (store.run(best.run_id).result() or {})["miou_fixed"]
    output = sweeps(store, "list").output
    assert output.index(vi.name) < output.index(iv.name)
    assert f"3/4 done, best VI[no,yes] {newest['best_miou']:.2f}; made-up, tiny; " in output


def test_a_sweep_that_cannot_be_read_is_listed_with_the_reason(
    store: Store, vi: Sweep, iv: Sweep
) -> None:
    path = store.sweep(iv.name) / "sweep.json"
    write_json(path, read_json(path) | {"tables": ["gone"]})
    (problem,) = filter(None, (each["problem"] for each in listed(store)))
    assert "no table 'gone'" in problem
    refused = sweeps(store, "rm", vi.name, "--results", "--yes")
    assert refused.exit_code == 2
    assert "it is not known which trainings it uses" in refused.output


@pytest.mark.parametrize("linked", ["sweeps/other", "sweeps/other/sweep.json", "labels/0123"])
def test_nothing_is_removed_with_results_while_a_link_to_what_may_use_them_is_broken(
    store: Store, vi: Sweep, linked: str
) -> None:
    path = store.root / linked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/mnt/gone")
    refused = sweeps(store, "rm", vi.name, "--results", "--yes")
    assert refused.exit_code == 2
    assert f"{path}: a broken link" in refused.output
    path.unlink()
    assert sweeps(store, "rm", vi.name, "--results", "--dry-run").exit_code == 0


@pytest.mark.parametrize("harm", ["wrong", "unreadable"])
def test_a_damaged_result_is_told_of_the_sweeps_that_use_it_and_left_out_of_the_cost_of_others(
    store: Store, vi: Sweep, iv: Sweep, best: Trial, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    path, before = store.run(best.run_id).path / "done.json", len(measured(store))
    if harm == "wrong":
        write_json(path, read_json(path) | {"miou_fixed": "high"})
        told = f"{path}: miou_fixed: must be a valid number; delete it"
    else:
        path.unlink()
        path.symlink_to(path)  # a circle of links cannot be opened
        told = f"'{path}'; have it made accessible to you"
    newest, oldest = listed(store)
    assert str(path) in newest["problem"]
    assert (oldest["problem"], oldest["done"]) == ("", oldest["total"])
    own, other = (sweeps(store, "status", "--sweep", sweep.name) for sweep in (vi, iv))
    assert (own.exit_code, other.exit_code) == (2, 0), own.output
    assert told in caplog.text
    assert len(measured(store)) == before - 1
    with pytest.raises((StoreError, OSError), match=str(path)):
        cost_of(vi, store)


def test_a_description_in_the_folder_of_another_is_refused_by_name(store: Store, iv: Sweep) -> None:
    copied = store.sweep("copied")
    shutil.copytree(store.sweep(iv.name), copied)
    os.utime(copied / "sweep.json")  # now the last one
    told = f"{copied}/sweep.json: holds no record of copied; give the folder back its name"
    for words in (("report",), ("status", "--sweep", "copied")):
        done = sweeps(store, *words)
        assert (done.exit_code, told in done.output) == (2, True), done.output
    assert [told in each["problem"] for each in listed(store)] == [True, False, False]


def test_removing_results_keeps_what_another_sweep_or_label_maps_use(
    store: Store, vi: Sweep, iv: Sweep, best: Trial, port: int, tmp_path: Path
) -> None:
    store.folder("maps/m").finish({"made_from": {"cams": best.cam_id}})
    here, there = (Remote(f"s3://{BUCKET}/x", path) for path in (store.root, tmp_path / "there"))
    for room in ("sweeps", *STAGES):
        here.push_folder(room)
    there.pull_results()  # another machine, which has nothing else
    planned, elsewhere = (
        plan_removal(each, vi.name, results=True) for each in (store, Store(there.mirror, there))
    )
    assert elsewhere.folders == planned.folders
    done = sweeps(store, "rm", vi.name, "--results", "--yes")
    assert done.exit_code == 0
    assert "2 of its trainings" in done.output
    kept = (*iv.plan.trials, best)
    assert names(store, "cams") == {trial.cam_id for trial in kept}
    assert names(store, "runs") == {trial.run_id for trial in kept}
    assert names(store, "counts") == {counts_id(trial.config) for trial in kept}


def test_removing_results_keeps_folders_and_links_that_are_no_stages(
    store: Store, vi: Sweep, iv: Sweep, best: Trial, tmp_path: Path
) -> None:
    counts = store.root / "counts"
    (counts / "mine").mkdir()
    (counts / "mine" / "notes.txt").touch()
    (counts / "up").symlink_to("..")  # so that the whole store is below it
    moved = counts / counts_id(best.config)
    moved.rename(tmp_path / "disk")
    moved.symlink_to(tmp_path / "disk")
    done = sweeps(store, "rm", vi.name, "--results", "--yes")
    assert done.exit_code == 0, done.output
    assert (counts / "up" / "counts" / "mine" / "notes.txt").exists()
    assert not moved.is_symlink()
    assert store.sweep_names() == [iv.name]


def test_a_removal_that_is_killed_can_be_repeated_or_the_sweep_run_again(
    store: Store, vi: Sweep, best: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam, counts = store.cam(best.cam_id), store.root / "counts" / counts_id(best.config)
    cam.add_attempt({"origin": {}, "resumed": False})
    cam.checkpoints.mkdir()
    (cam.checkpoints / "epoch_0003.pt").write_bytes(b"")
    unlink = Path.unlink
    for last in (counts / "counts.npz", cam.path / "attempts" / "0001.json"):

        def until(path: Path, last: Path = last, **options: bool) -> None:
            if path == last:
                raise KeyboardInterrupt
            unlink(path, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", until)
            assert sweeps(store, "rm", vi.name, "--results", "--yes").exit_code != 0
        assert last.exists()
    assert not counts.exists(), "the second call removes what the first has left"
    assert not is_half_trained(cam), "of unknown code, a run of the sweep would be refused"


def test_a_removal_from_a_bucket_names_what_goes_there_with_its_size(
    store: Store, vi: Sweep, best: Trial, port: int, tmp_path: Path
) -> None:
    checkpoints = store.cam(best.cam_id).checkpoints
    checkpoints.mkdir()
    (checkpoints / "epoch_0001.pt").write_bytes(bytes(2_000_000))
    here = Remote(f"s3://{BUCKET}/removed", store.root)
    for room in ("sweeps", *STAGES):
        here.push_folder(room)
    to_bucket = ("--store", here.url)
    mirror = {"WSSS_MIRROR": str(tmp_path / "there"), "COLUMNS": "200"}
    said = given("rm", vi.name, "--results", "--dry-run", *to_bucket, **mirror).output
    assert "2.0 MB to delete\n" in said
    assert f"  {here.url}/cams/{best.cam_id}\n" in said
    assert str(tmp_path) not in said
    assert "other machines keep their copies until the same command is given there" in said
    assert f"{here.url}: no sweep" in given("rm", "V-nowhere", *to_bucket, **mirror).output
    report = build_report(vi, Store(here.mirror, here))
    assert f"store: {here.url}" in closing(report)["Provenance"].items


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [(("--dry-run", "--results"), 0, "to delete"), ((), 2, "give --yes to delete it")],
)
def test_nothing_goes_unasked(
    store: Store, vi: Sweep, words: tuple[str, ...], code: int, said: str
) -> None:
    before = sorted(store.root.rglob("*"))
    found = sweeps(store, "rm", vi.name, *words)
    assert (found.exit_code, said in found.output) == (code, True)
    assert sorted(store.root.rglob("*")) == before


def test_with_its_input_closed_nobody_is_asked(
    store: Store, vi: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it then
    with pytest.raises(StoreError, match="give --yes to delete it"):
        rm(vi.name, store=str(store.root))


@pytest.mark.parametrize(("answer", "code", "is_kept"), [("n", 1, True), ("y", 0, False)])
def test_a_person_is_asked_and_the_answer_counts_for_the_sweep_and_not_for_its_trainings(
    store: Store, vi: Sweep, answer: str, code: int, *, is_kept: bool
) -> None:
    before = names(store, "cams"), names(store, "runs")
    ours, terminal = os.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        asked = subprocess.run(
            process("rm", vi.name, "--store", store.root),
            stdin=terminal,
            capture_output=True,
            env=environment(),
            text=True,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(terminal)
    assert (asked.returncode, store.sweep(vi.name).exists()) == (code, is_kept), asked.stderr
    assert "Delete this?" in asked.stdout
    assert before == (names(store, "cams"), names(store, "runs"))


def test_a_headline_is_listed_from_its_start_and_its_training_is_kept_for_it(
    store: Store, vi: Sweep, best: Trial
) -> None:
    headline = planned_headline("none", "masks", sweep=vi, cell="VI[no,yes]")
    save_headline(store, headline)
    (entry,) = (each for each in listed(store) if each["kind"] == "headline")
    assert (entry["name"], entry["tables"]) == (headline.name, ["VI[no,yes]"])
    assert (entry["done"], entry["total"], entry["best_miou"]) == (0, 2, None)
    columns = ("origin", "table", "quantity", "method", "percent")
    rows = (("measured here", "I", "mIoU", "CAM", 61.5), ("measured here", "I", "mIoU", "x", None))
    report = headline.report_folder(store)
    report.mkdir()
    (report / "headline.csv").write_text(records_text(Records(columns, rows)))
    output = sweeps(store, "list").output
    assert "1/2 done, best CAM 61.50; " in output
    for damaged in ("table,origin\nI\n", f'origin\n"{"x" * 200_000}"\n'):
        (report / "headline.csv").write_text(damaged)
        (entry,) = (each for each in listed(store) if each["problem"])
        assert f"{report}/headline.csv: not what `sweeps headline` writes (" in entry["problem"]
    (report / "headline.csv").unlink()
    assert sweeps(store, "rm", vi.name, "--results", "--yes").exit_code == 0
    assert store.cam(best.cam_id).path.exists()
    assert sweeps(store, "rm", headline.name, "--yes").exit_code == 0
    assert not headline.folder(store).exists()


def test_a_running_sweep_and_an_unknown_name_are_refused(store: Store, vi: Sweep) -> None:
    with driving(store, Driven("sweep", vi.name), "wait"):
        running = sweeps(store, "rm", vi.name, "--yes")
    unknown = sweeps(store, "rm", "V-nowhere", "--yes")
    assert (running.exit_code, unknown.exit_code) == (2, 2)
    assert f"another process runs sweep {vi.name}" in running.output
    assert f"no sweep, search or headline V-nowhere; there are: {vi.name}" in unknown.output
    assert vi.name in store.sweep_names()
