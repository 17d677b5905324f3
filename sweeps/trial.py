"""One trial: train -> infer -> score, each stage kept in the store and never run twice.

Runs in one process or in every rank of several; plain torch, no Ray and no MLflow.
"""

import itertools
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from sweeps.code_version import code_version
from sweeps.store import CamFolder, RunFolder, Store, StoreError, write_config, write_json
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import collect, count_image, threshold_grid
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
NUM_INFERENCE_REPORTS = 5

CountedImage = tuple[str, NDArray[np.uint32], NDArray[np.uint32]]
"""Image id, codes and counts, as `count_image` gives them."""


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
        yield from _Stages(config, task, process, cam, run).all()
        return
    try:
        with cam.lock().acquire(timeout=LOCK_WAIT_SECONDS):
            yield from _Stages(config, task, process, cam, run).all()
    except Timeout:
        raise StoreError(
            f"{cam.path}: another process is training this; wait for it or end it"
        ) from None


class _Stages:
    """The stages of one trial on one rank. Only the first rank writes."""

    def __init__(
        self, config: RunConfig, task: TrialTask, process: Process, cam: CamFolder, run: RunFolder
    ) -> None:
        self.config, self.task, self.process, self.cam, self.run = config, task, process, cam, run
        self.started = time.time()
        self.dataset = VocDataset(Path(task.data))
        self.train_samples = self.dataset.samples(config.data.train_split)
        self.eval_samples = self.dataset.samples(config.data.eval_split)
        self.num_classes = len(self.dataset.classes)

    def all(self) -> Iterator[dict[str, float]]:
        """Train, infer and score."""
        config, last = self.config, float(self.config.train.epochs)
        weights_file = Path(self.task.weights_file) if self.task.weights_file else None
        model = build_cam_net(
            config, self.train_samples, self.num_classes, weights_file=weights_file
        )
        if self.process.is_first:
            write_config(self.cam.path / "config.json", config)
            write_config(self.run.path / "config.json", config)
        share = _training_share(config)
        for record in self.train(model):
            yield record | {"progress": share * record["epoch"] / last}
        images: list[CountedImage] = []
        self.inference_started = time.time()
        for done in self.count(model, images):
            yield {"epoch": last, "progress": share + (0.99 - share) * done}
        gathered = [image for part in self.process.gather(images) for image in part]
        score = self.score(model, gathered) if self.process.is_first else {}
        yield {"epoch": last, "progress": 1.0} | score

    def train(self, model: CamNet) -> Iterator[dict[str, float]]:
        """Train from the last checkpoint, or load a finished training; yield each epoch."""
        checkpoints = CheckpointFolder(self.cam.checkpoints)
        if self.cam.trained() and checkpoints.restore(model).epoch == self.config.train.epochs:
            return  # else its last checkpoint was lost, and what is missing is trained again
        for record in train_cam(
            model, self.config, self.train_samples, self.num_classes, process=self.process,
            checkpoints=checkpoints, num_loader_workers=self.task.num_loader_workers,
        ):  # fmt: skip
            if self.process.is_first:
                self.cam.add_epoch(asdict(record))
            yield {key: float(value) for key, value in record.metrics().items()}
        if self.process.is_first:
            write_json(self.cam.path / "trained.json", {"epochs": self.config.train.epochs})

    def count(self, model: CamNet, images: list[CountedImage]) -> Iterator[float]:
        """Infer and count this rank's images into `images`; yield the share done, five times."""
        thresholds = threshold_grid(self.config.labels.background_score)
        own = self.eval_samples[self.process.rank :: self.process.world_size]
        inferred = infer_cams(model, own, self.config.labels, device=self.process.device)
        for part in range(NUM_INFERENCE_REPORTS):
            until = -(-len(own) * (part + 1) // NUM_INFERENCE_REPORTS)
            for image in itertools.islice(inferred, until - len(images)):
                sample, mask = image.sample, self.dataset.mask(image.sample.image_id)
                counted = count_image(
                    image.cams, sample.labels, mask, thresholds, self.num_classes + 1
                )
                images.append((sample.image_id, *counted))
            yield (part + 1) / NUM_INFERENCE_REPORTS

    def score(self, model: CamNet, images: list[CountedImage]) -> dict[str, float]:
        """Write counts, figures and, last, metrics.json; return the mIoU for the display."""
        config, path = self.config, self.run.path
        counts = collect(
            images, threshold_grid(config.labels.background_score), self.num_classes + 1
        )
        score = score_counts(counts, config.labels)
        counts.save(path / "counts.npz")
        draw_threshold_curve(path / "threshold_curve.png", score)
        shown = self.eval_samples[:: max(1, len(self.eval_samples) // NUM_GALLERY_IMAGES)]
        draw_gallery(
            path / "cam_gallery.png", model, self.dataset, shown[:NUM_GALLERY_IMAGES], config,
            device=self.process.device,
        )  # fmt: skip
        metrics = asdict(score) | {
            "classes": self.dataset.classes,
            "data": {
                "train_images": len(self.train_samples),
                "eval_images": len(self.eval_samples),
            },
            "train_seconds": sum(record["seconds"] for record in self.cam.epochs()),
            "inference_seconds": time.time() - self.inference_started,
            "last_attempt_seconds": time.time() - self.started,
            "environment": environment(self.process),
        }
        self.run.clear_failure()
        write_json(path / "metrics.json", metrics)
        return {"miou_fixed": score.miou_fixed, "miou_best": score.miou_best}


def _training_share(config: RunConfig) -> float:
    """Guess the share of a trial's time that training takes; for progress displays only."""
    training = config.train.epochs * 3 * (1 + len(config.views.names))
    inference = sum(scale**2 for scale in config.labels.scales) * (2 if config.labels.flip else 1)
    return training / (training + 2 * inference)


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
