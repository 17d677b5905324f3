"""One trial: its files, that no finished stage runs again, and that a broken one continues."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from made_up.finished import fill, finish, finished_sweep
from outcomes import figures, metrics, step_losses

from sweeps.plan.chains.chain import counts_id
from sweeps.run.driver import NOT_COMPLETE
from sweeps.run.ray.resources import Resources
from sweeps.run.subjects.tables import DrivenSweep
from sweeps.stages.score import num_reports
from sweeps.stages.stage import EndedEarlyError, Place
from sweeps.stages.train_cam import trained_cam
from sweeps.stages.trial import run_group, run_trial
from sweeps.store.errors import StoreError
from sweeps.store.failures import take_note
from sweeps.store.store import Folder, Store
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import ThresholdCounts
from wsss.identity import cam_id, run_id
from wsss.overrides import apply_overrides
from wsss.training.execution import Execution


@pytest.fixture(scope="module")
def config(small: RunConfig) -> RunConfig:
    return apply_overrides(small, {"views.enhanced": True, "views.decreased": True})


@pytest.fixture
def new(tmp_path: Path) -> Store:
    return Store(tmp_path / "new")


def run(config: RunConfig, store: Store, data: Path) -> list[dict[str, Any]]:
    return list(run_trial(config, Place(store, data)))


class Finished(NamedTuple):
    store: Store
    records: list[dict[str, Any]]
    """What the trial yielded."""
    synced: dict[int, int]
    """Inode of each file that was put on disk -> its size then."""


@pytest.fixture(scope="module")
def finished(config: RunConfig, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A store with one finished trial."""
    store, synced = Store(tmp_path_factory.mktemp("finished")), dict[int, int]()

    def note(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", note)
        return Finished(store, run(config, store, drawn), synced)


@pytest.fixture
def store(finished: Finished, tmp_path: Path) -> Store:
    """A copy of it, to change."""
    return Store(Path(shutil.copytree(finished.store.root, tmp_path / "store")))


def same_outcome(store: Store, other: Store, config: RunConfig) -> bool:
    of_steps = step_losses(store, config) == step_losses(other, config)
    return of_steps and figures(store, config) == figures(other, config)


def ages(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}


def test_each_file_of_a_finished_trial_survives_a_power_cut(finished: Finished) -> None:
    root, synced = finished.store.root, finished.synced
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(files) == 15
    assert [p for p in files if synced.get(p.stat().st_ino) != p.stat().st_size] == []


def test_a_trial_writes_what_the_store_promises(finished: Finished, config: RunConfig) -> None:
    files = {
        f"cams/{cam_id(config)}": (
            *("config.json", "attempts/0001.json"),
            *(f"epochs/{epoch:04}.json" for epoch in (1, 2, 3)),
            *(f"checkpoints/epoch_{epoch:04}.pt" for epoch in (2, 3)),
        ),
        f"counts/{counts_id(config)}": ("counts.npz",),
        f"runs/{run_id(config)}": (
            *("config.json", "image_counts.npz", "threshold_curve.png", "cam_gallery.png"),
        ),
    }
    assert ages(finished.store.root).keys() == {
        f"{folder}/{name}"
        for folder in files
        for name in (*files[folder], "done.json", "stage.lock")
    }
    saved = json.loads((finished.store.run(run_id(config)).path / "config.json").read_text())
    assert (saved["train"]["epochs"], saved["views"]["enhanced"]) == (3, True)


def test_a_trial_yields_its_epochs_then_its_score_with_growing_progress(
    finished: Finished, config: RunConfig
) -> None:
    store, records, _ = finished
    assert [r["epoch"] for r in records if "loss" in r] == [1, 2, 3]
    progress = [record["progress"] for record in records]
    assert progress == sorted(progress)
    assert 0 < progress[0] < progress[-2] < progress[-1] == 1
    assert all(isinstance(value, float | str) for record in records for value in record.values())
    assert records[-1].items() >= {
        (key, metrics(store, config)[key]) for key in ("miou_fixed", "miou_best")
    }
    assert [record["epoch"] for record in store.cam(cam_id(config)).epochs()] == [1, 2, 3]


def test_the_figures_come_with_their_circumstances_in_json_that_any_reader_takes(
    finished: Finished, config: RunConfig, drawn: Path
) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (finished.store.run(run_id(config)).path / "done.json").read_text()
    saved = json.loads(text, parse_constant=refuse)
    counts = ThresholdCounts.load(finished.store.root / "counts" / counts_id(config) / "counts.npz")
    scored = VocDataset(drawn).image_ids("train")
    assert counts.image_ids == tuple(scored)
    assert saved["data"] == {"train_images": 16, "eval_images": len(scored)}
    assert len(saved["classes"]) == 20
    assert saved["environment"].items() >= {("device", "cpu"), ("processes", 1)}
    assert saved["environment"]["torch"].startswith("2.")
    assert min(saved[f"{stage}_seconds"] for stage in ("train", "inference", "score")) > 0
    assert saved["made_from"] == {"cams": cam_id(config), "counts": counts_id(config)}


def test_a_finished_trial_yields_nothing_touches_nothing_and_needs_its_data_no_more(
    store: Store, config: RunConfig, tmp_path: Path
) -> None:
    before = ages(store.root)
    assert run(config, store, tmp_path / "gone") == []
    assert ages(store.root) == before


@pytest.mark.parametrize("lost", ["*.pt", "epoch_0003.pt"])
def test_a_lost_checkpoint_is_trained_again_and_never_scored_in_part(
    store: Store, finished: Finished, config: RunConfig, drawn: Path, lost: str
) -> None:
    (store.run(run_id(config)).path / "done.json").unlink()
    for path in store.cam(cam_id(config)).checkpoints.glob(lost):
        path.unlink()
    with pytest.raises(StoreError, match=r"checkpoints: \d of 3 epochs can be read; give the same"):
        trained_cam(config, Place(store, drawn))
    run(config, store, drawn)
    assert same_outcome(store, finished.store, config)


@contextmanager
def held_for_a_second(cam: Folder) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds a training's lock, until it is killed."""
    code = (
        "import sys, time\nfrom sweeps.store.store import Folder\nfrom pathlib import Path\n"
        "lock = Folder(Path(sys.argv[1])).lock()\nlock.acquire()\n"
        "print('held', flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(cam.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        threading.Timer(1.0, other.kill).start()  # a killed process leaves no lock behind
        yield other


def test_a_second_process_on_one_training_waits_until_the_first_ends(
    store: Store, config: RunConfig, drawn: Path
) -> None:
    cam = store.cam(cam_id(config))
    for folder in (store.run(run_id(config)), cam):
        (folder.path / "done.json").unlink()
    with held_for_a_second(cam):
        begun = time.time()
        assert run(config, store, drawn)[-1]["progress"] == 1
    assert (cam.path / "done.json").stat().st_mtime > begun + 0.9


def test_who_waits_for_another_process_says_so_and_ends_when_asked(
    new: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def asked() -> None:
        raise EndedEarlyError

    cam = new.cam("c")
    with held_for_a_second(cam) as other:
        with pytest.raises(EndedEarlyError), cam.hold(every=0.1, meanwhile=asked):
            pass
        assert other.poll() is None
        with cam.hold(every=0.1):
            assert other.poll() == -9
    assert f"{cam.path}: another process is working on this; waiting for it" in caplog.text


def asked_after(count: int) -> Callable[[], bool]:
    """Return what says that the end was asked for, from its so manieth call on."""
    calls = itertools.count(1)
    return lambda: next(calls) > count


def test_a_trial_that_is_asked_to_end_anywhere_loses_no_step(
    finished: Finished, config: RunConfig, drawn: Path, new: Store
) -> None:
    cam, left = new.cam(cam_id(config)), list[str]()
    execution = Execution(checkpoint_minutes=0)
    for count in (2, 2, 4, 8):
        place = Place(new, drawn, execution=execution, is_ending=asked_after(count))
        with pytest.raises(EndedEarlyError):
            list(run_group([config], place))
        left.append(cam.checkpoint_names()[-1])
    assert left == ["epoch_0000_0000002.pt", *(f"epoch_000{epoch}.pt" for epoch in (1, 2, 3))]
    assert cam.is_finished(), "the last time, it was asked while the images were counted"
    assert not new.run(run_id(config)).why_failed()
    run(config, new, drawn)
    assert same_outcome(new, finished.store, config)


# Several scores of one training


def with_score(config: RunConfig, score: float, **labels: Any) -> RunConfig:
    more = {f"labels.{name}": value for name, value in labels.items()}
    return apply_overrides(config, {"labels.background_score": score} | more)


def test_another_score_trains_and_infers_nothing_with_figures_as_if_anew(
    config: RunConfig, store: Store, drawn: Path, new: Store
) -> None:
    other = with_score(config, 0.3, threshold_range=(0.1, 0.4))
    assert [record["progress"] for record in run(other, store, drawn)] == [1.0]
    run(other, new, drawn)
    assert figures(store, other) == figures(new, other)
    for name in ("threshold_curve.png", "cam_gallery.png", "config.json", "image_counts.npz"):
        first, second = ((each.run(run_id(other)).path / name) for each in (store, new))
        assert first.read_bytes() == second.read_bytes()


def test_a_group_trains_and_infers_once_and_says_which_run_a_record_is_about(
    small: RunConfig, new: Store, drawn: Path
) -> None:
    row = [with_score(small, score) for score in (0.05, 0.1, 0.15)]
    records, ids = list(run_group(row, Place(new, drawn))), [run_id(one) for one in row]
    assert [record["run"] for record in records if "miou_fixed" in record] == ids
    assert {record["run"] for record in records if "loss" in record} == {ids[0]}
    of_inference = [r for r in records if not {"loss", "miou_fixed"} & r.keys()]
    assert len(of_inference) == num_reports(10) + 2  # later scores are announced
    assert len(list((new.root / "cams").iterdir())) == 1
    fixed = [metrics(new, one)["miou_fixed"] for one in row]
    curve = dict(map(tuple, metrics(new, row[0])["curve"]))
    assert fixed == pytest.approx([curve[one.labels.background_score] for one in row], abs=1e-4)


def test_a_later_score_is_announced_so_that_its_error_is_looked_for_where_it_is_noted(
    config: RunConfig, store: Store, drawn: Path
) -> None:
    other = with_score(config, 0.35)
    folder = store.run(run_id(other)).path
    (folder / "cam_gallery.png").mkdir(parents=True)  # in the picture's place
    group = run_group([config, other], Place(store, drawn))
    assert next(group)["run"] == run_id(other)  # the first is scored already
    with pytest.raises(IsADirectoryError):
        next(group)
    assert take_note(folder).kind == "IsADirectoryError"


def test_a_training_that_diverges_fails_every_run_of_its_group_once(
    wild: RunConfig, new: Store, drawn: Path
) -> None:
    row = [with_score(wild, score) for score in (0.1, 0.2)]
    records = run_group(row, Place(new, drawn))
    assert ["diverged: " in record["failed"] for record in records] == [True, True]
    assert len(new.cam(cam_id(wild)).attempts()) == 1
    assert {new.run(run_id(one)).failure()["kind"] for one in row} == {"diverged"}


def test_scores_on_the_grid_share_their_counts_and_others_add_a_point_to_it() -> None:
    ids = {score: counts_id(with_score(RunConfig(), score)) for score in (0.05, 0.3, 0.155, 0.3333)}
    assert ids[0.05] == ids[0.3]
    assert len(set(ids.values())) == 3


@pytest.mark.parametrize(("images", "reports"), [(3, 5), (500, 5), (501, 6), (10_582, 106)])
def test_a_count_of_many_images_is_not_silent_for_long(images: int, reports: int) -> None:
    assert num_reports(images) == reports


@pytest.mark.parametrize("lost", ["done.json", "counts.npz"])
def test_counts_that_are_lost_or_broken_are_inferred_again(
    config: RunConfig, store: Store, drawn: Path, lost: str
) -> None:
    path = store.folder(f"counts/{counts_id(config)}").path / lost
    path.unlink()
    if lost == "counts.npz":
        path.write_bytes(b"PK broken")
    assert len(run(with_score(config, 0.3), store, drawn)) == num_reports(10) + 1


def test_resources_hand_their_options_to_every_trial(new: Store) -> None:
    execution = Execution(2, micro_batch=3)
    tables = DrivenSweep(finished_sweep(("VI",), 1), new)
    runner = tables.runner(Resources(execution=execution))
    assert runner.shared["place"].execution == execution


def test_a_sweep_that_ends_with_results_missing_is_no_success(new: Store) -> None:
    sweep = finished_sweep(("VI",), 1)
    missing = sweep.plan.trials[0]
    fill(new, sweep, lambda trial: None if trial == missing else 0.5)
    tables = DrivenSweep(sweep, new)
    assert tables.failures() == [NOT_COMPLETE]
    new.run(missing.run_id).fail("diverged", "at iteration 3", "")
    (failed, again) = tables.failures()
    assert failed == f"failed: {missing.name}: diverged: at iteration 3"
    assert again.startswith("run them again with: ")
    finish(new, missing, 0.5)
    assert tables.failures() == []
