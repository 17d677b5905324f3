"""From a trained CAM network to label PNGs, stage by stage, each resumable and kept in files.

    infer CAMs -> (learn affinity -> random walk) -> write labels -> score

Images may be done in any process and order; a file is whole or absent, and one that is there is
never made again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wsss.config import RunConfig
from wsss.data.voc import Sample, VocDataset
from wsss.errors import ForeseenError
from wsss.evaluation.segmentation_score import score_folder
from wsss.json_files import append_record, read_json, write_json
from wsss.labels.affinity_labels import confident_labels
from wsss.labels.cam_files import read_cams, write_cams
from wsss.labels.infer import ImageCams, infer_cams
from wsss.labels.random_walk import walk_labels
from wsss.labels.refined import LabelJob, write_label
from wsss.networks.affinity_net import AffinityNet
from wsss.pool import pool_map
from wsss.segmentation_config import PseudoLabelConfig
from wsss.training.affinity import build_affinity_net, train_affinity
from wsss.training.cam import build_cam_net
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.execution import Execution

INFER, LEARN, WALK, WRITE = "infer CAMs", "learn affinity", "random walk", "write labels"


class NoCheckpointError(ForeseenError, RuntimeError):
    """A training whose network is not there; the message names the folder and the remedy."""


@dataclass(frozen=True)
class LabelTask:
    """What labels to make from which training, and where things lie on this machine."""

    run: RunConfig
    labels: PseudoLabelConfig
    data: Path
    weights_file: Path | None
    checkpoints: Path
    """Of the CAM training."""
    maps: Path
    """Folder of the CAMs, <image>.npz."""
    walk: Path
    """Folder of the affinity network and of the CAMs behind the random walk."""
    target: Path
    """Folder of the label PNGs, png/<image>.png, and of score.json."""
    split: str = "train_aug"
    execution: Execution = field(default_factory=Execution)
    """How the affinity network is trained."""

    @property
    def stages(self) -> list[str]:
        """The names of the stages, in order."""
        return [INFER, LEARN, WALK, WRITE] if self.labels.walks else [INFER, WRITE]


class LabelStages:
    """The stages of one task in one process."""

    def __init__(self, task: LabelTask, device: torch.device) -> None:
        self.task, self.device = task, device
        self.dataset = VocDataset(task.data)

    def missing(self, stage: str) -> list[str]:
        """Return the images that a stage has not done yet."""
        folder, suffix = self._outputs(stage)
        there = {path.name for path in folder.glob(f"*{suffix}")}
        ids = self.dataset.image_ids(self.task.split)
        return [image_id for image_id in ids if f"{image_id}{suffix}" not in there]

    def images(self, stage: str, image_ids: list[str], *, num_workers: int = 0) -> Iterator[str]:
        """Do a stage for these images; yield each id once its file is written.

        num_workers: processes of `write labels`; 0 works in this one.
        """
        samples = [self.dataset.sample(image_id) for image_id in image_ids]
        if stage == INFER:
            return self._infer(samples)
        if stage == WALK:
            return self._walk(samples)
        return self._write_labels(samples, num_workers)

    def learn_affinity(self) -> Iterator[tuple[float, float]]:
        """Train the affinity network on the labels that the CAMs are sure of; yield (epoch, of)."""
        folder, walk = self.task.walk, self.task.labels.random_walk
        if read_json(folder / "trained.json"):
            return
        records = train_affinity(
            self._affinity_net(), self.dataset.samples(self.task.split), self._confident, walk,
            device=self.device, checkpoints=CheckpointFolder(folder / "checkpoints"),
            execution=self.task.execution,
        )  # fmt: skip
        for record in records:
            append_record(folder / "epochs.jsonl", asdict(record))
            yield record.epoch, walk.epochs
        write_json(folder / "trained.json", {"epochs": walk.epochs})

    def score(self) -> dict[str, Any] | None:
        """Score the written labels against masks, once; None for labels that leave pixels out.

        Scored are those images of the evaluation split (VOC's own `train`) that have labels.
        """
        if self.task.labels.background != "fixed":
            return None
        path = self.task.target / "score.json"
        if not read_json(path):
            written = set(self.dataset.image_ids(self.task.split))
            split = self.task.run.data.eval_split
            ids = [i for i in self.dataset.image_ids(split) if i in written]
            write_json(path, asdict(score_folder(self.task.target / "png", self.dataset, ids)))
        found: dict[str, Any] = read_json(path)
        return found

    def _outputs(self, stage: str) -> tuple[Path, str]:
        return {
            INFER: (self.task.maps, ".npz"),
            WALK: (self.task.walk / "maps", ".npz"),
            WRITE: (self.task.target / "png", ".png"),
        }[stage]

    def _infer(self, samples: list[Sample]) -> Iterator[str]:
        task = self.task
        trained_on = self.dataset.samples(task.run.data.train_split)  # sets new batch norms
        model = build_cam_net(
            task.run, trained_on, len(self.dataset.classes), weights_file=task.weights_file
        )
        _restore(CheckpointFolder(task.checkpoints), model)
        images = infer_cams(model, samples, task.run.labels, device=self.device)
        yield from _write_cams(images, task.maps)

    def _walk(self, samples: list[Sample]) -> Iterator[str]:
        model = self._affinity_net()
        _restore(CheckpointFolder(self.task.walk / "checkpoints"), model)
        plain = (
            ImageCams(s, read_cams(self.task.maps / f"{s.image_id}.npz").cams) for s in samples
        )
        walked = walk_labels(model, plain, self.task.labels.random_walk, device=self.device)
        yield from _write_cams(walked, self.task.walk / "maps")

    def _write_labels(self, samples: list[Sample], num_workers: int) -> Iterator[str]:
        task = self.task
        source = task.walk / "maps" if task.labels.walks else task.maps

        def job(sample: Sample) -> LabelJob:
            name = sample.image_id
            target = task.target / "png" / f"{name}.png"
            return LabelJob(sample, source / f"{name}.npz", target, task.labels)

        jobs = ((sample.image_id, job(sample)) for sample in samples)
        for image_id, _ in pool_map(write_label, jobs, num_workers=num_workers):
            yield image_id

    def _confident(self, sample: Sample) -> NDArray[np.uint8]:
        walk = self.task.labels.random_walk
        return confident_labels(
            read_cams(self.task.maps / f"{sample.image_id}.npz").cams, sample.labels,
            foreground_score=walk.confident_foreground,
            background_score=walk.confident_background,
        )  # fmt: skip

    def _affinity_net(self) -> AffinityNet:
        return build_affinity_net(
            self.task.run.network, self.task.labels.random_walk,
            weights_file=self.task.weights_file,
        )  # fmt: skip


def _restore(checkpoints: CheckpointFolder, model: nn.Module) -> None:
    if checkpoints.restore(model).epoch == 0:
        raise NoCheckpointError(
            f"{checkpoints.folder}: no readable checkpoint of a finished training; delete "
            f"{checkpoints.folder.parent} to train again"
        )


def _write_cams(images: Iterable[ImageCams], folder: Path) -> Iterator[str]:
    for image in images:
        write_cams(folder / f"{image.sample.image_id}.npz", image.cams, image.sample.labels)
        yield image.sample.image_id
