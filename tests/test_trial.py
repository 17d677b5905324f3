"""One trial: its files, that no finished stage runs again, and that a broken one continues."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from PIL import Image

from sweeps.plan.sweep import make_sweep
from sweeps.run.resources import Resources
from sweeps.run.tables import Tables, Wishes
from sweeps.stages import training_lock
from sweeps.stages import trial as trial_module
from sweeps.stages.task import TrialTask
from sweeps.stages.trial import run_trial
from sweeps.store.store import Store, StoreError, write_json
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import ThresholdCounts
from wsss.identity import cam_id, run_id
from wsss.overrides import apply_overrides
from wsss.training.execution import Execution
from wsss.training.process import Process

EXPLANATORY = {
    "train_seconds", "inference_seconds", "after_training_seconds", "last_attempt_seconds",
    "environment", "counts_from",
}  # fmt: skip
"""What differs between two runs of one trial: when, how long and where."""


@pytest.fixture(scope="module")
def config(small: RunConfig) -> RunConfig:
    return apply_overrides(small, {"views.enhanced": True, "views.decreased": True})


def task_of(config: RunConfig, store: Path, data: Path) -> TrialTask:
    return TrialTask(config.model_dump(mode="json"), str(store), str(data), None)


def run(config: RunConfig, store: Path, data: Path) -> list[dict[str, float]]:
    return list(run_trial(task_of(config, store, data), Process()))


def metrics(config: RunConfig, store: Path) -> dict[str, Any]:
    found = Store(store).run(run_id(config)).metrics()
    assert found is not None
    return found


def figures(config: RunConfig, store: Path) -> dict[str, Any]:
    return {k: v for k, v in metrics(config, store).items() if k not in EXPLANATORY}


def step_losses(config: RunConfig, store: Path) -> list[list[float]]:
    return [record["step_losses"] for record in Store(store).cam(cam_id(config)).epochs()]


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


def test_a_trial_writes_what_the_store_promises(
    finished: tuple[Path, Any], config: RunConfig
) -> None:
    cam, scored = f"cams/{cam_id(config)}", f"runs/{run_id(config)}"
    files = set(ages(finished[0])) - {f"{cam}/training.lock"}
    assert files == {
        f"{cam}/config.json", f"{cam}/epochs.jsonl", f"{cam}/trained.json",
        f"{cam}/counted.json",
        f"{cam}/checkpoints/epoch_0002.pt", f"{cam}/checkpoints/epoch_0003.pt",
        f"{scored}/config.json", f"{scored}/counts.npz", f"{scored}/metrics.json",
        f"{scored}/image_counts.npz",
        f"{scored}/threshold_curve.png", f"{scored}/cam_gallery.png",
    }  # fmt: skip
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
    assert all(isinstance(value, float | int) for record in records for value in record.values())
    last, saved = records[-1], metrics(config, store)
    assert (last["miou_fixed"], last["miou_best"]) == (saved["miou_fixed"], saved["miou_best"])
    lines = (store / "cams" / cam_id(config) / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_the_figures_are_those_of_the_counted_pixels(
    finished: tuple[Path, Any], config: RunConfig, drawn: Path
) -> None:
    # Independently: the confusion matrix at the fixed threshold, from the counts, label by label.
    saved = metrics(config, finished[0])
    counts = ThresholdCounts.load(finished[0] / "runs" / run_id(config) / "counts.npz")
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


def test_the_figures_come_with_their_circumstances(
    finished: tuple[Path, Any], config: RunConfig
) -> None:
    saved = metrics(config, finished[0])
    assert saved["data"] == {"train_images": 16, "eval_images": 10}
    assert saved["classes"][0] == "aeroplane"
    assert len(saved["classes"]) == 20
    assert saved["environment"]["device"] == "cpu"
    assert saved["environment"]["processes"] == 1
    assert saved["environment"]["torch"].startswith("2.")
    assert saved["last_attempt_seconds"] > saved["train_seconds"] > 0


def test_the_figures_are_json_that_any_reader_takes(
    finished: tuple[Path, Any], config: RunConfig
) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    text = (finished[0] / "runs" / run_id(config) / "metrics.json").read_text()
    json.loads(text, parse_constant=refuse)


def test_a_second_call_yields_nothing_and_touches_nothing(
    store: Path, config: RunConfig, drawn: Path
) -> None:
    before = ages(store)
    assert run(config, store, drawn) == []
    assert ages(store) == before


def test_a_finished_trial_needs_its_data_no_more(
    store: Path, config: RunConfig, tmp_path: Path
) -> None:
    assert run(config, store, tmp_path / "gone") == []


def test_other_label_settings_reuse_the_training(
    store: Path, config: RunConfig, drawn: Path
) -> None:
    cam = store / "cams" / cam_id(config)
    kept = ["epochs.jsonl", "checkpoints/epoch_0002.pt", "checkpoints/epoch_0003.pt"]
    before = {name: ages(cam)[name] for name in [*kept, "trained.json"]}
    other = apply_overrides(config, {"labels.scales": (1.0,), "labels.background_score": 0.3})
    records = run(other, store, drawn)
    assert not any("loss" in record for record in records)
    assert records[-1]["progress"] == 1
    assert {name: ages(cam)[name] for name in before} == before
    assert len((cam / "epochs.jsonl").read_text().splitlines()) == 3
    assert metrics(other, store)["fixed_threshold"] == 0.3
    assert metrics(other, store)["curve"] != metrics(config, store)["curve"]
    assert metrics(config, store)["fixed_threshold"] == 0.15


def test_the_scored_network_is_the_trained_one_after_a_new_start(
    store: Path, config: RunConfig, drawn: Path
) -> None:
    # Without its score, the trial scores again from the checkpoint and comes to the same figures.
    before = figures(config, store)
    (store / "runs" / run_id(config) / "metrics.json").unlink()
    assert not any("loss" in record for record in run(config, store, drawn))
    assert figures(config, store) == before


@pytest.mark.parametrize("stop_after", [2, 4])
def test_a_trial_which_was_stopped_ends_where_an_unbroken_one_does(
    finished: tuple[Path, Any], config: RunConfig, drawn: Path, tmp_path: Path, stop_after: int
) -> None:
    loop = run_trial(task_of(config, tmp_path, drawn), Process())
    assert isinstance(loop, Iterator)
    for _ in range(stop_after):
        next(loop)
    loop.close()
    assert Store(tmp_path).run(run_id(config)).metrics() is None
    cam = Store(tmp_path).cam(cam_id(config))
    checkpoints = sorted(path.name for path in cam.checkpoints.glob("*.pt"))
    epochs_done = stop_after - 1  # an epoch's checkpoint comes with the next record
    assert [f"epoch_{n:04d}.pt" for n in range(1, epochs_done + 1)][-2:] == checkpoints
    records = run(config, tmp_path, drawn)
    assert [r["epoch"] for r in records if "loss" in r] == list(range(epochs_done + 1, 4))
    assert step_losses(config, tmp_path) == step_losses(config, finished[0])
    assert figures(config, tmp_path) == figures(config, finished[0])


@pytest.mark.parametrize("lost", ["all checkpoints", "the newest", "the newest is broken"])
def test_a_lost_checkpoint_is_trained_again_and_never_scored_in_part(
    store: Path, config: RunConfig, drawn: Path, lost: str
) -> None:
    before = figures(config, store)
    (store / "runs" / run_id(config) / "metrics.json").unlink()
    checkpoints = store / "cams" / cam_id(config) / "checkpoints"
    if lost == "all checkpoints":
        shutil.rmtree(checkpoints)
    elif lost == "the newest":
        (checkpoints / "epoch_0003.pt").unlink()
    else:
        (checkpoints / "epoch_0003.pt").write_bytes(b"broken")
    run(config, store, drawn)
    assert figures(config, store) == before


def test_a_failure_is_forgotten_once_the_trial_succeeds(
    store: Path, config: RunConfig, drawn: Path
) -> None:
    folder = store / "runs" / run_id(config)
    (folder / "metrics.json").unlink()
    write_json(folder / "failure.json", {"kind": "diverged"})
    run(config, store, drawn)
    assert not (folder / "failure.json").exists()


def test_a_second_process_on_one_training_is_refused_until_the_first_ends(
    store: Path, config: RunConfig, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_lock, "LOCK_WAIT_SECONDS", 0.2)
    (store / "runs" / run_id(config) / "metrics.json").unlink()
    cam = Store(store).cam(cam_id(config))
    code = (
        "import sys, time\nfrom sweeps.store.store import CamFolder\nfrom pathlib import Path\n"
        "lock = CamFolder(Path(sys.argv[1])).lock()\nlock.acquire()\n"
        "print('held', flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(cam.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another process is training this; wait for it or"):
            run(config, store, drawn)
        other.kill()  # a killed process leaves no lock behind
    assert run(config, store, drawn)[-1]["progress"] == 1


def test_the_options_of_a_sweep_reach_the_training_of_a_trial(
    config: RunConfig, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    class StoppedError(Exception):
        pass

    def watched(*_: Any, **options: Any) -> None:
        given.append(options)
        raise StoppedError

    sweep, _ = make_sweep(["V"], preset="tiny", data=drawn, weights=None, num_seeds=1, overrides={})
    resources = Resources(execution=Execution(2, micro_batch=3))
    tables = Tables(sweep, Store(tmp_path), Wishes())
    task = tables.task(sweep.plan.trials[0], resources)
    assert task.execution == Execution(2, micro_batch=3)
    monkeypatch.setattr(trial_module, "train_cam", watched)
    with pytest.raises(StoppedError):
        list(
            run_trial(
                replace(task_of(config, tmp_path, drawn), execution=task.execution), Process()
            )
        )
    assert given[0]["execution"] == task.execution


def test_scoring_another_split_or_corrected_masks_of_it_is_the_same_training(
    drawn: Path, tmp_path: Path
) -> None:
    """A training is named by its own split alone; what it is scored on names the run."""

    def ids(root: Path, split: str) -> tuple[str, str]:
        sweep, _ = make_sweep(
            ["III"], preset="tiny", data=root, weights=None, num_seeds=1,
            overrides={"data.eval_split": split},
        )  # fmt: skip
        trial = sweep.plan.trials[0]
        return trial.cam_id, trial.run_id

    copy = Path(shutil.copytree(drawn, tmp_path / drawn.name))
    path = copy / "SegmentationClass" / f"{VocDataset(copy).image_ids('val')[0]}.png"
    with Image.open(path) as mask:
        values, palette = np.array(mask), mask.getpalette()
    values[:4] = 255
    corrected = Image.fromarray(values)
    corrected.putpalette(palette or [])
    corrected.save(path)
    found = [ids(drawn, "train"), ids(drawn, "val"), ids(copy, "val")]
    assert len({cam_id for cam_id, _ in found}) == 1
    assert len({run_id for _, run_id in found}) == 3
