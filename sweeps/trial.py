"""One trial: train -> infer -> score, each stage kept in the store and never run twice.

Runs in one process or in every rank of several; plain torch, no Ray and no MLflow.
"""

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import Timeout

from sweeps.code_version import code_version
from sweeps.store import CamFolder, RunFolder, Store, StoreError, write_config, write_json
from wsss.config import RunConfig
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.confusion import ThresholdCounts, collect, count_image, threshold_grid
from wsss.evaluation.figures import draw_gallery, draw_threshold_curve
from wsss.evaluation.score import score_counts
from wsss.identity import cam_id, run_id
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet
from wsss.training.cam import build_cam_net, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.process import Process

LOCK_WAIT_SECONDS = 30.0
"""How long to wait for a dying predecessor of the same trial to let go."""

NUM_GALLERY_IMAGES = 6


@dataclass(frozen=True)
class TrialTask:
    """What a worker needs to run a trial: the experiment, and where things lie on this machine."""

    config: dict[str, Any]
    """RunConfig as JSON."""
    store: str
    data: str
    weights_file: str | None
    num_loader_workers: int = 0


def run_trial(task: TrialTask, process: Process) -> Iterator[dict[str, float]]:
    """Run what is missing of a trial; yield progress as flat numbers.

    Every record has `epoch` and `progress` in [0, 1]; those of an epoch also have its losses, the
    last one the score. All ranks yield equally often. Raises StoreError if another process works on
    the same training.
    """
    config = RunConfig.model_validate(task.config)
    store = Store(Path(task.store))
    cam, run = store.cam(cam_id(config)), store.run(run_id(config))
    if run.metrics() is not None:
        return
    if not process.is_first:
        yield from _stages(config, task, process, cam, run)
        return
    try:
        with cam.lock().acquire(timeout=LOCK_WAIT_SECONDS):
            yield from _stages(config, task, process, cam, run)
    except Timeout:
        raise StoreError(
            f"{cam.path}: another process is training this; wait for it or end it"
        ) from None


def _stages(
    config: RunConfig, task: TrialTask, process: Process, cam: CamFolder, run: RunFolder
) -> Iterator[dict[str, float]]:
    started = time.time()
    dataset = VocDataset(Path(task.data))
    num_classes = len(dataset.classes)
    train_samples = dataset.samples(config.data.train_split)
    eval_samples = dataset.samples(config.data.eval_split)
    model = build_cam_net(
        config, train_samples, num_classes,
        weights_file=Path(task.weights_file) if task.weights_file else None,
    )  # fmt: skip
    if process.is_first:
        write_config(cam.path / "config.json", config)
        write_config(run.path / "config.json", config)
    share = _training_share(config)
    for record in _train(model, config, task, process, cam, train_samples, num_classes):
        yield record | {"progress": share * record["epoch"] / config.train.epochs}
    images: list[Any] = []
    own = eval_samples[process.rank :: process.world_size]
    num_labels, thresholds = num_classes + 1, threshold_grid(config.labels.background_score)
    num_reports, per_report = 5, max(1, -(-len(eval_samples) // (5 * process.world_size)))
    inference = infer_cams(model, own, config.labels, device=process.device)
    for part in range(num_reports):
        for image in _take(inference, per_report):
            counted = count_image(
                image.cams, image.sample.labels, dataset.mask(image.sample.image_id), thresholds,
                num_labels,
            )  # fmt: skip
            images.append((image.sample.image_id, *counted))
        done = (part + 1) / num_reports
        yield {"epoch": float(config.train.epochs), "progress": share + (0.99 - share) * done}
    gathered = [image for part in process.gather(images) for image in part]
    if process.is_first:
        counts = collect(gathered, thresholds, num_labels)
        metrics = _write_run(run, config, counts, dataset, model, eval_samples, process)
        metrics |= {
            "classes": dataset.classes,
            "train_seconds": sum(record["seconds"] for record in cam.epochs()),
            "last_attempt_seconds": time.time() - started,
            "environment": environment(process),
            "data": {
                "train_images": len(train_samples),
                "eval_images": len(eval_samples),
            },
        }
        run.clear_failure()
        write_json(run.path / "metrics.json", metrics)
        yield {
            "epoch": float(config.train.epochs),
            "progress": 1.0,
            "miou_fixed": metrics["miou_fixed"],
            "miou_best": metrics["miou_best"],
        }
    else:
        yield {"epoch": float(config.train.epochs), "progress": 1.0}


def _train(
    model: CamNet,
    config: RunConfig,
    task: TrialTask,
    process: Process,
    cam: CamFolder,
    samples: list[Sample],
    num_classes: int,
) -> Iterator[dict[str, float]]:
    checkpoints = CheckpointFolder(cam.checkpoints)
    if cam.trained() and checkpoints.restore(model).epoch == config.train.epochs:
        return  # else its last checkpoint was lost, and what is missing is trained again
    for record in train_cam(
        model, config, samples, num_classes, process=process, checkpoints=checkpoints,
        num_loader_workers=task.num_loader_workers,
    ):  # fmt: skip
        if process.is_first:
            cam.add_epoch(asdict(record))
        yield {key: float(value) for key, value in record.metrics().items()}
    if process.is_first:
        write_json(cam.path / "trained.json", {"epochs": config.train.epochs})


def _write_run(
    run: RunFolder,
    config: RunConfig,
    counts: ThresholdCounts,
    dataset: VocDataset,
    model: CamNet,
    samples: list[Sample],
    process: Process,
) -> dict[str, Any]:
    """Write counts and figures; return the figures' numbers."""
    score = score_counts(counts, config.labels)
    counts.save(run.path / "counts.npz")
    draw_threshold_curve(run.path / "threshold_curve.png", score)
    step = max(1, len(samples) // NUM_GALLERY_IMAGES)
    draw_gallery(
        run.path / "cam_gallery.png", model, dataset, samples[::step][:NUM_GALLERY_IMAGES], config,
        device=process.device,
    )  # fmt: skip
    return asdict(score)


def _training_share(config: RunConfig) -> float:
    """Guess the share of a trial's time that training takes; for progress displays only."""
    training = config.train.epochs * 3 * (1 + len(config.views.names))
    inference = sum(scale**2 for scale in config.labels.scales) * (2 if config.labels.flip else 1)
    return training / (training + 2 * inference)


def _take(items: Iterator[Any], count: int) -> Iterator[Any]:
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return


def environment(process: Process) -> dict[str, Any]:
    """Return what a result was computed with: code, versions and the kind of machine."""
    packages = ("torch", "torchvision", "numpy", "pillow", "ray", "mlflow", "wsss-sweeps")
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "device": process.device.type,
        "processes": process.world_size,
        **{name: version(name) for name in packages},
    }
