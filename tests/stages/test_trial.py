"""One trial: its files, that no finished stage runs again, and that a broken one continues."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from made_up.finished import fill, finish, finished_sweep
from outcomes import figures, metrics, step_losses
from PIL import Image

from sweeps.evidence.image_counts import THRESHOLDS, load_image_counts
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import BaseOptions, make_sweep
from sweeps.plan.trials import make_plan
from sweeps.run.driver import NOT_COMPLETE
from sweeps.run.ray.resources import Resources
from sweeps.run.subjects.tables import DrivenSweep
from sweeps.stages.score import NUM_INFERENCE_REPORTS
from sweeps.stages.stage import EndedEarlyError, Place
from sweeps.stages.trial import run_group, run_trial
from sweeps.store.failures import take_note
from sweeps.store.store import Folder, Store, write_json
from sweeps.tables.studies import TABLES
from wsss.config import RunConfig
from wsss.evaluation.confusion import ThresholdCounts
from wsss.identity import cam_id, run_id
from wsss.overrides import apply_overrides
from wsss.training.execution import Execution


@pytest.fixture(scope="module")
def config(small: RunConfig) -> RunConfig:
    return apply_overrides(small, {"views.enhanced": True, "views.decreased": True})


def run(config: RunConfig, store: Path, data: Path) -> list[dict[str, float]]:
    return list(run_trial(config, Place(Store(store), data)))


def begin(config: RunConfig, store: Path, data: Path, *, records: int) -> None:
    """Leave a trial after so many records."""
    loop = run_trial(config, Place(Store(store), data))
    assert isinstance(loop, Generator)
    for _ in range(records):
        next(loop)
    loop.close()


def ages(root: Path) -> dict[str, int]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def finished(
    config: RunConfig, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, float]]]:
    """A store with one finished trial, and the records which it yielded."""
    store = tmp_path_factory.mktemp("finished")
    return store, run(config, store, drawn)


@pytest.fixture
def store(finished: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(finished[0], tmp_path / "store"))


def test_each_file_of_a_finished_trial_survives_a_power_cut(
    config: RunConfig, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}
    """Inode of each file that was put on disk -> its size then."""

    def note(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    monkeypatch.setattr(os, "fsync", note)
    run(config, tmp_path, drawn)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(files) == 15
    assert [p for p in files if synced.get(p.stat().st_ino) != p.stat().st_size] == []


def test_a_trial_writes_what_the_store_promises(
    finished: tuple[Path, Any], config: RunConfig
) -> None:
    cam, scored = f"cams/{cam_id(config)}", f"runs/{run_id(config)}"
    counts = f"counts/{counts_id(config)}"
    files = {name for name in ages(finished[0]) if not name.endswith("stage.lock")}
    assert files == {
        f"{cam}/config.json",
        f"{cam}/done.json",
        f"{cam}/attempts/0001.json",
        *(f"{cam}/epochs/{epoch:04}.json" for epoch in (1, 2, 3)),
        f"{cam}/checkpoints/epoch_0002.pt",
        f"{cam}/checkpoints/epoch_0003.pt",
        f"{counts}/counts.npz",
        f"{counts}/done.json",
        f"{scored}/config.json",
        f"{scored}/done.json",
        f"{scored}/image_counts.npz",
        f"{scored}/threshold_curve.png",
        f"{scored}/cam_gallery.png",
    }
    for name in ("threshold_curve.png", "cam_gallery.png"):
        with Image.open(finished[0] / scored / name) as picture:
            assert min(picture.size) > 100
    saved = json.loads((finished[0] / scored / "config.json").read_text())
    assert saved["train"]["epochs"] == 3
    assert saved["views"]["enhanced"] is True


def test_a_trial_yields_its_epochs_then_its_score_with_growing_progress(
    finished: tuple[Path, list[dict[str, float]]], config: RunConfig
) -> None:
    store, records = finished
    assert [r["epoch"] for r in records if "loss" in r] == [1, 2, 3]
    progress = [record["progress"] for record in records]
    assert progress == sorted(progress)
    assert 0 < progress[0] < progress[-2] < progress[-1] == 1
    assert all(isinstance(value, float | str) for record in records for value in record.values())
    last, saved = records[-1], metrics(Store(store), config)
    assert (last["miou_fixed"], last["miou_best"]) == (saved["miou_fixed"], saved["miou_best"])
    kept = Store(store).cam(cam_id(config)).epochs()
    assert [record["epoch"] for record in kept] == [1, 2, 3]


def test_the_figures_are_those_of_the_counted_pixels(
    finished: tuple[Path, Any], config: RunConfig, drawn: Path
) -> None:
    # Independently: the confusion matrix at the fixed threshold, from the counts, label by label.
    saved = metrics(Store(finished[0]), config)
    counts = ThresholdCounts.load(finished[0] / "counts" / counts_id(config) / "counts.npz")
    ids = (drawn / "ImageSets/Segmentation/train.txt").read_text().split()
    assert list(counts.image_ids) == ids
    matrix = np.zeros((21, 21), np.int64)
    for code, count in zip(counts.codes.tolist(), counts.counts.tolist(), strict=True):
        pair, bucket = divmod(code, 101)
        truth, label = divmod(pair, 21)
        matrix[truth, label if bucket > 15 else 0] += count  # thresholds 0, .01, ... .15 passed
    valid = 0
    for image_id in ids:
        mask = np.array(Image.open(drawn / f"SegmentationClass/{image_id}.png"))
        valid += int((mask != 255).sum())
    assert matrix.sum() == valid
    assert saved["miou_fixed"] == pytest.approx(100 * reference.miou(matrix), abs=1e-6)
    assert saved["fixed_threshold"] == 0.15
    ious = [None if v is None else pytest.approx(100 * v, abs=1e-3) for v in reference.ious(matrix)]
    assert saved["iou_fixed"] == ious
    assert saved["miou_best"] >= saved["miou_fixed"]
    assert dict(map(tuple, saved["curve"]))[saved["best_threshold"]] == pytest.approx(
        saved["miou_best"], abs=1e-3
    )


def test_the_figures_come_with_their_circumstances_in_json_that_any_reader_takes(
    finished: tuple[Path, Any], config: RunConfig
) -> None:
    saved = metrics(Store(finished[0]), config)
    assert saved["data"] == {"train_images": 16, "eval_images": 10}
    assert saved["classes"][0] == "aeroplane"
    assert len(saved["classes"]) == 20
    assert saved["environment"]["device"] == "cpu"
    assert saved["environment"]["processes"] == 1
    assert saved["environment"]["torch"].startswith("2.")
    assert min(saved[f"{stage}_seconds"] for stage in ("train", "inference", "score")) > 0
    assert saved["made_from"] == {"cams": cam_id(config), "counts": counts_id(config)}

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (finished[0] / "runs" / run_id(config) / "done.json").read_text()
    json.loads(text, parse_constant=refuse)


def test_a_finished_trial_yields_nothing_touches_nothing_and_needs_its_data_no_more(
    store: Path, config: RunConfig, tmp_path: Path
) -> None:
    before = ages(store)
    assert run(config, store, tmp_path / "gone") == []
    assert ages(store) == before


def test_a_new_start_scores_the_trained_network_and_forgets_a_failure(
    store: Path, config: RunConfig, drawn: Path
) -> None:
    # Without its score, the trial scores again from the checkpoint and comes to the same figures.
    before = figures(Store(store), config)
    folder = store / "runs" / run_id(config)
    (folder / "done.json").unlink()
    write_json(folder / "failure.json", {"kind": "diverged"})
    assert not any("loss" in record for record in run(config, store, drawn))
    assert figures(Store(store), config) == before
    assert not (folder / "failure.json").exists()


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_trial_which_was_stopped_ends_where_an_unbroken_one_does(
    finished: tuple[Path, Any], config: RunConfig, drawn: Path, tmp_path: Path, stop_after: int
) -> None:
    begin(config, tmp_path, drawn, records=stop_after)
    assert Store(tmp_path).run(run_id(config)).metrics() is None
    cam = Store(tmp_path).cam(cam_id(config))
    checkpoints = sorted(path.name for path in cam.checkpoints.glob("*.pt"))
    epochs_done = stop_after - 1  # an epoch's checkpoint comes with the next record
    assert [f"epoch_{n:04d}.pt" for n in range(1, epochs_done + 1)][-2:] == checkpoints
    records = run(config, tmp_path, drawn)
    assert [r["epoch"] for r in records if "loss" in r] == list(range(epochs_done + 1, 4))
    assert step_losses(Store(tmp_path), config) == step_losses(Store(finished[0]), config)
    assert figures(Store(tmp_path), config) == figures(Store(finished[0]), config)


@pytest.mark.parametrize("lost", ["*.pt", "epoch_0003.pt"])
def test_a_lost_checkpoint_is_trained_again_and_never_scored_in_part(
    store: Path, config: RunConfig, drawn: Path, lost: str
) -> None:
    before = figures(Store(store), config)
    (store / "runs" / run_id(config) / "done.json").unlink()
    for path in (store / "cams" / cam_id(config) / "checkpoints").glob(lost):
        path.unlink()
    run(config, store, drawn)
    assert figures(Store(store), config) == before


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
    store: Path, config: RunConfig, drawn: Path
) -> None:
    cam = Store(store).cam(cam_id(config))
    (store / "runs" / run_id(config) / "done.json").unlink()
    (cam.path / "done.json").unlink()
    with held_for_a_second(cam) as other:
        assert run(config, store, drawn)[-1]["progress"] == 1
        assert other.poll() == -9


def test_who_waits_for_another_process_ends_when_asked(tmp_path: Path) -> None:
    cam = Store(tmp_path).cam("c")

    def asked() -> None:
        raise EndedEarlyError

    with held_for_a_second(cam) as other:
        with pytest.raises(EndedEarlyError), cam.hold(every=0.1, meanwhile=asked):
            pass
        assert other.poll() is None


def test_who_waits_for_another_process_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cam = Store(tmp_path).cam("c")
    with held_for_a_second(cam) as other, cam.hold(every=0.1):
        assert other.poll() == -9
    assert f"{cam.path}: another process is working on this; waiting for it" in caplog.text


def asked_after(count: int) -> Callable[[], bool]:
    """Return what says that the end was asked for, from its so manieth call on."""
    calls = itertools.count(1)
    return lambda: next(calls) > count


def test_a_trial_that_is_asked_to_end_anywhere_loses_no_step(
    finished: tuple[Path, Any], config: RunConfig, drawn: Path, tmp_path: Path
) -> None:
    cam, left = Store(tmp_path).cam(cam_id(config)), list[str]()
    execution = Execution(checkpoint_minutes=0)
    for count in (2, 2, 4, 8):
        place = Place(Store(tmp_path), drawn, execution=execution, is_ending=asked_after(count))
        with pytest.raises(EndedEarlyError):
            list(run_group([config], place))
        left.append(cam.checkpoint_names()[-1])
    within, *after = left
    assert within == "epoch_0000_0000002.pt"
    assert after == [f"epoch_000{epoch}.pt" for epoch in (1, 2, 3)]
    assert cam.is_finished(), "the last time, it was asked while the images were counted"
    assert not Store(tmp_path).run(run_id(config)).why_failed()
    run(config, tmp_path, drawn)
    assert step_losses(Store(tmp_path), config) == step_losses(Store(finished[0]), config)
    assert figures(Store(tmp_path), config) == figures(Store(finished[0]), config)


# Several scores of one training


def with_score(config: RunConfig, score: float, **labels: Any) -> RunConfig:
    more = {f"labels.{name}": value for name, value in labels.items()}
    return apply_overrides(config, {"labels.background_score": score} | more)


def test_another_score_trains_and_infers_nothing_with_figures_as_if_anew(
    config: RunConfig, store: Path, drawn: Path, tmp_path: Path
) -> None:
    other = with_score(config, 0.3, threshold_range=(0.1, 0.4))
    assert [record["progress"] for record in run(other, store, drawn)] == [1.0]
    run(other, tmp_path / "anew", drawn)
    assert figures(Store(store), other) == figures(Store(tmp_path / "anew"), other)
    for name in ("threshold_curve.png", "cam_gallery.png", "config.json"):
        first, second = (
            root / "runs" / run_id(other) / name for root in (store, tmp_path / "anew")
        )
        assert first.read_bytes() == second.read_bytes()
    for threshold in THRESHOLDS:
        (_, one), (_, two) = (
            load_image_counts(Store(root).run(run_id(other)), threshold)
            for root in (store, tmp_path / "anew")
        )
        assert (one.union == two.union).all()
        assert (one.intersection == two.intersection).all()


def test_a_group_trains_and_infers_once_and_says_which_run_a_record_is_about(
    small: RunConfig, tmp_path: Path, drawn: Path
) -> None:
    plan = make_plan([TABLES["background-score"]], small, 1)
    row = [t.config for t in plan.trials if t.cells[0].startswith("background-score[B0")][:3]
    records = list(run_group(row, Place(Store(tmp_path), drawn)))
    ids = [run_id(one) for one in row]
    assert [record["run"] for record in records if "miou_fixed" in record] == ids
    assert {record["run"] for record in records if "loss" in record} == {ids[0]}
    of_inference = [r for r in records if not {"loss", "miou_fixed"} & r.keys()]
    assert len(of_inference) == NUM_INFERENCE_REPORTS + 2  # later scores are announced
    assert len(list((tmp_path / "cams").iterdir())) == 1
    fixed = [metrics(Store(tmp_path), one)["miou_fixed"] for one in row]
    curve = dict(map(tuple, metrics(Store(tmp_path), row[0])["curve"]))
    assert fixed == pytest.approx([curve[one.labels.background_score] for one in row], abs=1e-4)


def test_a_later_score_is_announced_so_that_its_error_is_looked_for_where_it_is_noted(
    config: RunConfig, store: Path, drawn: Path
) -> None:
    other = with_score(config, 0.35)
    folder = Store(store).run(run_id(other)).path
    (folder / "cam_gallery.png").mkdir(parents=True)  # in the picture's place
    group = run_group([config, other], Place(Store(store), drawn))
    assert next(group)["run"] == run_id(other)  # the first is scored already
    with pytest.raises(IsADirectoryError):
        next(group)
    note = take_note(folder)
    assert note.kind == "IsADirectoryError"


def test_a_training_that_diverges_fails_every_run_of_its_group_once(
    wild: RunConfig, tmp_path: Path, drawn: Path
) -> None:
    row, store = [with_score(wild, score) for score in (0.1, 0.2)], Store(tmp_path)
    place = Place(store, drawn)
    assert ["diverged: " in r["failed"] for r in run_group(row, place)] == [True, True]
    assert len(store.cam(cam_id(wild)).attempts()) == 1
    for one in row:
        failure = store.run(run_id(one)).failure()
        assert failure["kind"] == "diverged"


@pytest.mark.parametrize(
    "change",
    [
        {"labels.scales": (1.0,)},
        {"labels.flip": False},
        {"labels.resize": "bilinear"},
        {"labels.upsampling": "direct"},
        {"labels.precision": "bf16"},
        {"data.eval_split": "val"},
        {"data.fingerprint": "corrected"},
    ],
)
def test_another_inference_or_set_of_masks_is_counted_apart(
    small: RunConfig, change: dict[str, Any]
) -> None:
    other = apply_overrides(small, change)
    assert counts_id(other) != counts_id(small)
    assert cam_id(other) == cam_id(small)


def test_scores_on_the_grid_share_their_counts_and_others_add_a_point_to_it() -> None:
    ids = {score: counts_id(with_score(RunConfig(), score)) for score in (0.05, 0.3, 0.155, 0.3333)}
    assert ids[0.05] == ids[0.3]
    assert len(set(ids.values())) == 3


@pytest.mark.parametrize("lost", ["done.json", "broken"])
def test_counts_that_are_lost_or_broken_are_inferred_again(
    config: RunConfig, store: Path, drawn: Path, lost: str
) -> None:
    counts = store / "counts" / counts_id(config)
    if lost == "broken":
        (counts / "counts.npz").write_bytes(b"PK broken")
    else:
        (counts / lost).unlink()
    assert len(run(with_score(config, 0.3), store, drawn)) == NUM_INFERENCE_REPORTS + 1


def test_resources_hand_their_options_to_every_trial(drawn: Path, tmp_path: Path) -> None:
    sweep, _ = make_sweep(["V"], BaseOptions("tiny", drawn))
    resources = Resources(execution=Execution(2, micro_batch=3))
    (each,) = DrivenSweep(sweep, Store(tmp_path)).rounds(resources)
    assert each.shared["place"].execution == Execution(2, micro_batch=3)


def test_a_sweep_that_ends_with_results_missing_is_no_success(tmp_path: Path) -> None:
    sweep, store = finished_sweep(("VI",), 1), Store(tmp_path)
    missing = sweep.plan.trials[0]
    fill(store, sweep, lambda trial: None if trial == missing else 0.5)
    tables = DrivenSweep(sweep, store)
    assert tables.failures() == [NOT_COMPLETE]
    store.run(missing.run_id).fail("diverged", "at iteration 3", "")
    (failed, again) = tables.failures()
    assert failed == f"failed: {missing.name}: diverged: at iteration 3"
    assert again.startswith("run them again with: ")
    finish(store, missing, 0.5)
    assert tables.failures() == []
