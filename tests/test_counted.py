"""Scoring a training again from the counts of another run: no inference, and no other figures."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.evidence.image_counts import load_image_counts
from sweeps.plan import counted as counted_module
from sweeps.plan.counted import find_counts, inference_key, note_counts
from sweeps.plan.trials import make_plan
from sweeps.stages import training_lock
from sweeps.stages import trial as trial_module
from sweeps.stages.task import TrialTask
from sweeps.stages.trial import NUM_GALLERY_IMAGES, run_trial
from sweeps.store.store import Store, StoreError, write_json
from sweeps.tables.studies import TABLES
from wsss.config import RunConfig
from wsss.data.voc import Sample
from wsss.evaluation import figures as figures_module
from wsss.evaluation.confusion import ThresholdCounts
from wsss.identity import cam_id, run_id
from wsss.overrides import apply_overrides
from wsss.training.process import Process

OF_THIS_ATTEMPT = {
    "train_seconds", "inference_seconds", "after_training_seconds", "last_attempt_seconds",
    "environment", "counts_from",
}  # fmt: skip


def run(config: RunConfig, store: Path, data: Path) -> list[dict[str, float]]:
    task = TrialTask(config.model_dump(mode="json"), str(store), str(data), None)
    return list(run_trial(task, Process()))


def metrics(config: RunConfig, store: Path) -> dict[str, Any]:
    found = Store(store).run(run_id(config)).metrics()
    assert found is not None
    return found


def figures(config: RunConfig, store: Path) -> dict[str, Any]:
    return {k: v for k, v in metrics(config, store).items() if k not in OF_THIS_ATTEMPT}


def with_score(config: RunConfig, score: float, **labels: Any) -> RunConfig:
    more = {f"labels.{name}": value for name, value in labels.items()}
    return apply_overrides(config, {"labels.background_score": score} | more)


@pytest.fixture(scope="module")
def finished(small: RunConfig, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the first column of a row: background score .05."""
    store = tmp_path_factory.mktemp("finished")
    run(with_score(small, 0.05), store, drawn)
    return store


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


@pytest.fixture
def inferred(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The ids of the images which are inferred from here on, for counting and for the gallery."""
    seen: dict[str, list[str]] = {"counting": [], "gallery": []}
    infer = trial_module.infer_cams

    def watch(module: Any, name: str) -> None:
        def watched(
            model: Any, samples: Iterable[Sample], *rest: Any, **named: Any
        ) -> Iterator[Any]:
            for image in infer(model, samples, *rest, **named):
                seen[name].append(image.sample.image_id)
                yield image

        monkeypatch.setattr(module, "infer_cams", watched)

    watch(trial_module, "counting")
    watch(figures_module, "gallery")
    return seen


def test_the_second_score_of_a_training_infers_the_gallery_alone_and_trains_nothing(
    small: RunConfig, store: Path, drawn: Path, inferred: dict[str, list[str]]
) -> None:
    second = with_score(small, 0.3)
    assert cam_id(second) == cam_id(with_score(small, 0.05))
    trained = (store / "cams" / cam_id(second) / "epochs.jsonl").stat().st_mtime_ns
    records = run(second, store, drawn)
    assert not any("loss" in record for record in records)
    assert records[-1]["progress"] == 1
    assert inferred["counting"] == []
    assert 0 < len(inferred["gallery"]) <= NUM_GALLERY_IMAGES
    assert (store / "cams" / cam_id(second) / "epochs.jsonl").stat().st_mtime_ns == trained
    assert metrics(second, store)["counts_from"] == run_id(with_score(small, 0.05))
    assert metrics(second, store)["inference_seconds"] == 0


def test_its_figures_and_files_are_those_of_a_run_that_infers_itself(
    small: RunConfig, store: Path, drawn: Path, tmp_path: Path
) -> None:
    second = with_score(small, 0.3, threshold_range=(0.1, 0.4))
    run(second, store, drawn)
    run(second, tmp_path / "anew", drawn)
    assert metrics(second, store)["counts_from"] is not None
    assert metrics(second, tmp_path / "anew")["counts_from"] is None
    assert figures(second, store) == figures(second, tmp_path / "anew")
    for name in ("threshold_curve.png", "cam_gallery.png", "config.json"):
        first, other = (
            root / "runs" / run_id(second) / name for root in (store, tmp_path / "anew")
        )
        assert first.read_bytes() == other.read_bytes()
    first_counts, other_counts = (
        load_image_counts(Store(root).run(run_id(second))) for root in (store, tmp_path / "anew")
    )
    assert (first_counts.fixed.union == other_counts.fixed.union).all()
    assert (first_counts.best.intersection == other_counts.best.intersection).all()


def test_a_row_of_the_background_score_table_infers_once(
    small: RunConfig, tmp_path: Path, drawn: Path, inferred: dict[str, list[str]]
) -> None:
    plan = make_plan([TABLES["background-score"]], small, 1)
    row = [t for t in plan.trials if t.cells[0].startswith("background-score[B0")]
    assert len(row) == 8
    for trial in row:
        run(trial.config, tmp_path, drawn)
    assert len(inferred["counting"]) == 10  # the images of the split, once
    assert len(list((tmp_path / "cams").iterdir())) == 1
    fixed = [metrics(trial.config, tmp_path)["miou_fixed"] for trial in row]
    curve = dict(map(tuple, metrics(row[0].config, tmp_path)["curve"]))
    scores = [trial.config.labels.background_score for trial in row]
    assert fixed == pytest.approx([curve[score] for score in scores], abs=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        {"labels.scales": (1.0,)},
        {"labels.flip": False},
        {"data.eval_split": "val"},
        {"labels.background_score": 0.155},  # off the grid: its curve has a point more
    ],
)
def test_another_inference_or_grid_or_split_is_inferred(
    small: RunConfig,
    store: Path,
    drawn: Path,
    inferred: dict[str, list[str]],
    other: dict[str, Any],
) -> None:
    changed = apply_overrides(small, other)
    run(changed, store, drawn)
    assert len(inferred["counting"]) == (3 if "data.eval_split" in other else 10)
    assert metrics(changed, store)["counts_from"] is None


def test_scores_off_the_grid_share_nothing_and_those_on_it_all() -> None:
    base = RunConfig()
    keys = {score: inference_key(with_score(base, score)) for score in (0.05, 0.3, 0.155, 0.3333)}
    assert keys[0.05] == keys[0.3]
    assert len(set(keys.values())) == 3


@pytest.mark.parametrize("lost", ["counts.npz", "metrics.json", "broken"])
def test_counts_that_are_lost_or_broken_are_inferred_again(
    small: RunConfig, store: Path, drawn: Path, inferred: dict[str, list[str]], lost: str
) -> None:
    first = store / "runs" / run_id(with_score(small, 0.05))
    if lost == "broken":
        (first / "counts.npz").write_bytes(b"PK broken")
    else:
        (first / lost).unlink()
    second = with_score(small, 0.3)
    run(second, store, drawn)
    assert len(inferred["counting"]) == 10
    assert metrics(second, store)["counts_from"] is None


def test_counts_of_other_images_are_not_taken(small: RunConfig, store: Path) -> None:
    root, first = Store(store), with_score(small, 0.05)
    cam = root.cam(cam_id(first))
    ids = set(ThresholdCounts.load(root.run(run_id(first)).path / "counts.npz").image_ids)
    found = find_counts(root, cam, with_score(small, 0.4), ids)
    assert found is not None
    assert found[0] == run_id(first)
    assert find_counts(root, cam, with_score(small, 0.4), ids | {"another"}) is None


def test_a_training_lists_the_run_that_counted_last_for_each_inference(
    small: RunConfig, tmp_path: Path
) -> None:
    cam, other = Store(tmp_path).cam("abc"), apply_overrides(small, {"labels.flip": False})
    note_counts(cam, small, "one")
    note_counts(cam, other, "two")
    note_counts(cam, small, "three")
    saved = json.loads((cam.path / counted_module.FILE_NAME).read_text())
    assert saved == {inference_key(small): "three", inference_key(other): "two"}


def test_a_training_that_another_run_of_it_holds_is_waited_for(
    small: RunConfig, store: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two columns of one row at a time: the second does not fail, however long the first takes.
    monkeypatch.setattr(training_lock, "LOCK_WAIT_SECONDS", 0.1)
    second = with_score(small, 0.3)
    cam = Store(store).cam(cam_id(second))
    write_json(cam.path / "holder.json", {"run_id": "another run"})
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        with cam.lock().acquire():
            os.write(go, b"x")
            os.read(ready, 0)
            trial_module.time.sleep(1.0)
            os._exit(0)
    os.read(ready, 1)
    assert run(second, store, drawn)[-1]["progress"] == 1
    os.waitpid(child, 0)
    assert not (cam.path / "holder.json").exists()


def test_a_training_that_this_very_run_holds_elsewhere_is_refused(
    small: RunConfig, store: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_lock, "LOCK_WAIT_SECONDS", 0.1)
    second = with_score(small, 0.3)
    cam = Store(store).cam(cam_id(second))
    write_json(cam.path / "holder.json", {"run_id": run_id(second)})
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        with cam.lock().acquire():
            os.write(go, b"x")
            trial_module.time.sleep(60)
            os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(StoreError, match="another process is training this"):
            run(second, store, drawn)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
