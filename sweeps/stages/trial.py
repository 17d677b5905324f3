"""One trial: train -> infer -> score, each stage kept in the store and never run twice.

Runs in one process or in every rank of several; plain torch, no Ray and no MLflow.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweeps.evidence.image_counts import count_images, save_image_counts
from sweeps.plan.counted import find_counts, note_counts
from sweeps.stages.remote_trial import RemoteTrial
from sweeps.stages.task import TrialTask
from sweeps.stages.training_lock import training_lock
from sweeps.stages.training_warnings import to_record
from sweeps.store.code_version import environment
from sweeps.store.errors import disk_errors
from sweeps.store.store import write_config, write_json
from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import ThresholdCounts, collect, count_image, threshold_grid
from wsss.evaluation.figures import draw_gallery, draw_threshold_curve
from wsss.evaluation.score import score_counts
from wsss.identity import cam_id, run_id
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet
from wsss.training.cam import build_cam_net, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.dead_maps import find_dead_maps
from wsss.training.prior import PriorLimits, PriorWarning
from wsss.training.process import Process

NUM_GALLERY_IMAGES = 6
NUM_INFERENCE_REPORTS = 5

CountedImage = tuple[str, NDArray[np.uint32], NDArray[np.uint32]]
"""Image id, codes and counts, as `count_image` gives them."""


def run_trial(
    task: TrialTask, process: Process, limits: PriorLimits | None = None
) -> Iterator[dict[str, float]]:
    """Run what is missing of a trial; yield progress as flat numbers.

    Every record has `epoch` and `progress` in [0, 1]; those of an epoch also have its losses, one
    of a warning what training_warnings.py makes of it (dead maps come with their epoch), the last
    one the score. All ranks yield equally often. Raises StoreError if another process works on the
    same training, DivergedError and NotLearningError, on all ranks at once, as `train_cam` does.
    """
    limits = limits or PriorLimits()
    config, store = RunConfig.model_validate(task.config), task.open_store()
    cam, run = store.cam(cam_id(config)), store.run(run_id(config))
    if run.metrics() is not None and store.remote is None:
        return
    with disk_errors(store.root):
        if process.is_first:
            with training_lock(cam, run_id(config)) as lease:
                remote = RemoteTrial(store, config, process, lease)
                yield from _run_locked(config, task, process, remote, limits)
        else:
            remote = RemoteTrial(store, config, process, None)
            yield from _run_locked(config, task, process, remote, limits)


def _run_locked(
    config: RunConfig, task: TrialTask, process: Process, remote: RemoteTrial, limits: PriorLimits
) -> Iterator[dict[str, float]]:
    """Run the stages on this rank, once all ranks have what is in the bucket."""
    if remote.start():
        yield from _Stages(config, task, process, remote, limits).all()


class _Stages:
    """The stages of one trial on one rank. Only the first rank writes."""

    def __init__(
        self, config: RunConfig, task: TrialTask, process: Process, remote: RemoteTrial,
        limits: PriorLimits,
    ) -> None:  # fmt: skip
        self.config, self.task, self.process, self.limits = config, task, process, limits
        self.remote, self.store = remote, remote.store
        store = self.store
        self.cam, self.run = store.cam(cam_id(config)), store.run(run_id(config))
        self.started = self.trained_at = self.inference_started = time.time()
        self.inference_seconds = 0.0
        self.counts_from: str | None = None
        """The run whose counts serve this one too; None: inferred here."""
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
        self.trained_at = time.time()
        counted = self.known_counts()
        if counted is None:
            images: list[CountedImage] = []
            self.inference_started = time.time()
            for done in self.count(model, images):
                yield {"epoch": last, "progress": share + (0.99 - share) * done}
            counted = self.gather(images)
        score = self.score(model, counted) if self.process.is_first else {}
        self.remote.finish()
        yield {"epoch": last, "progress": 1.0} | score

    def train(self, model: CamNet) -> Iterator[dict[str, float]]:
        """Train from the last checkpoint, or load a finished training; yield each epoch."""
        checkpoints = CheckpointFolder(self.cam.checkpoints, after_save=self.remote.after_save)
        if self.cam.trained() and checkpoints.restore(model).epoch == self.config.train.epochs:
            return  # else its last checkpoint was lost, and what is missing is trained again
        if self.process.is_first and not any(self.cam.checkpoints.glob("epoch_*.pt")):
            self.cam.clear_warning()
        config, samples, epoch = self.config, self.train_samples, 0.0
        for record in train_cam(
            model, config, samples, self.num_classes, process=self.process,
            checkpoints=checkpoints, execution=self.task.execution, limits=self.limits,
        ):  # fmt: skip
            if isinstance(record, PriorWarning):
                self.warn(record)
                yield {"epoch": epoch} | to_record(record)
                continue
            epoch = float(record.epoch)
            numbers = {key: float(value) for key, value in record.metrics().items()}
            if self.process.is_first:
                self.cam.add_epoch(asdict(record))
                if dead := find_dead_maps(self.cam.epochs(), config):
                    numbers |= to_record(dead)
            yield numbers
        if self.process.is_first:
            write_json(self.cam.path / "trained.json", {"epochs": config.train.epochs})
            self.remote.push_training()

    def warn(self, warning: PriorWarning) -> None:
        """Keep a warning beside the training, for whoever looks at the store."""
        if self.process.is_first:
            self.cam.warn(asdict(warning) | {"message": str(warning)})
            self.remote.push_training()

    def known_counts(self) -> ThresholdCounts | None:
        """Return the counts of another run with this training and inference; the first decides."""
        found = None
        if self.process.is_first:
            self.remote.pull_counts()
            image_ids = {sample.image_id for sample in self.eval_samples}
            found = find_counts(self.store, self.cam, self.config, image_ids)
        found = self.process.gather(found)[0]
        if found is None:
            return None
        self.counts_from, counts = found
        return counts

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

    def gather(self, images: list[CountedImage]) -> ThresholdCounts:
        """Join the images which the ranks have counted."""
        gathered = [image for part in self.process.gather(images) for image in part]
        thresholds = threshold_grid(self.config.labels.background_score)
        self.inference_seconds = time.time() - self.inference_started
        return collect(gathered, thresholds, self.num_classes + 1)

    def score(self, model: CamNet, counts: ThresholdCounts) -> dict[str, float]:
        """Write counts, figures and, last, metrics.json; return the mIoU for the display."""
        config, path = self.config, self.run.path
        score = score_counts(counts, config.labels)
        counts.save(path / "counts.npz")
        save_image_counts(
            path, count_images(counts, fixed=score.fixed_threshold, best=score.best_threshold)
        )
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
            "inference_seconds": self.inference_seconds,
            "after_training_seconds": time.time() - self.trained_at,
            "counts_from": self.counts_from,
            "last_attempt_seconds": time.time() - self.started,
            "environment": environment(self.process),
        }
        self.run.clear_failure()
        write_json(path / "metrics.json", metrics)
        if self.counts_from is None:
            note_counts(self.cam, config, run_id(config))
        return {"miou_fixed": score.miou_fixed, "miou_best": score.miou_best}


def _training_share(config: RunConfig) -> float:
    """Guess the share of a trial's time that training takes; for progress displays only."""
    training = config.train.epochs * 3 * (1 + len(config.views.names))
    inference = sum(scale**2 for scale in config.labels.scales) * (2 if config.labels.flip else 1)
    return training / (training + 2 * inference)
