"""From images to label maps: CAM training, CAMs, affinity and random walk, refinement."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sweeps.chain_work import ChainWork, Steps, append_record, without
from sweeps.store import Store, StoreError, read_json, write_json
from sweeps.trial import TrialTask, run_trial
from wsss.data.voc import Sample
from wsss.evaluation.segmentation_score import score_folder
from wsss.identity import cam_id
from wsss.labels.affinity_labels import confident_labels
from wsss.labels.cam_files import read_cams, write_cams
from wsss.labels.infer import ImageCams, infer_cams
from wsss.labels.random_walk import walk_labels
from wsss.labels.refine import pool_map
from wsss.labels.refined import LabelJob, write_label
from wsss.networks.affinity_net import AffinityNet
from wsss.training.affinity import build_affinity_net, train_affinity
from wsss.training.cam import build_cam_net
from wsss.training.checkpoint import CheckpointFolder


class LabelStages(ChainWork):
    """The stages up to the label maps of the training images."""

    def train_cam(self) -> Steps:
        """Train the CAM network, unless a sweep did."""
        weights = str(self.task.weights_file) if self.task.weights_file else None
        task = TrialTask(
            self.run.model_dump(mode="json"), str(self.task.store), str(self.task.data), weights
        )
        for record in run_trial(task, self.process):
            yield record["progress"], 1.0

    def infer(self) -> Steps:
        """Write the CAMs of each training image that has none yet."""
        missing = without(self.samples, self.folders.maps, ".npz")
        if not missing:
            return
        store = Store(self.task.store)
        model = build_cam_net(
            self.run, self.samples, self.num_classes, weights_file=self.task.weights_file
        )
        self._restore(CheckpointFolder(store.cam(cam_id(self.run)).checkpoints), model)
        images = infer_cams(model, missing, self.run.labels, device=self.process.device)
        yield from self._write_cams(images, self.folders.maps, len(missing))

    def learn_affinity(self) -> Steps:
        """Train the affinity network on the labels that the CAMs are sure of."""
        assert self.chain.labels is not None
        walk = self.chain.labels.random_walk
        if read_json(self.folders.walk / "trained.json"):
            return
        model = self._affinity_net()
        records = train_affinity(
            model, self.samples, self._confident, walk, device=self.process.device,
            checkpoints=CheckpointFolder(self.folders.walk / "checkpoints"),
        )  # fmt: skip
        for record in records:
            append_record(self.folders.walk / "epochs.jsonl", asdict(record))
            yield record.epoch, walk.epochs
        write_json(self.folders.walk / "trained.json", {"epochs": walk.epochs})

    def walk(self) -> Steps:
        """Write the CAMs behind the random walk."""
        assert self.chain.labels is not None
        target = self.folders.walk / "maps"
        missing = without(self.samples, target, ".npz")
        if not missing:
            return
        model = self._affinity_net()
        self._restore(CheckpointFolder(self.folders.walk / "checkpoints"), model)
        plain = (ImageCams(s, read_cams(self.folders.maps / f"{s.image_id}.npz")) for s in missing)
        walked = walk_labels(
            model, plain, self.chain.labels.random_walk, device=self.process.device
        )
        yield from self._write_cams(walked, target, len(missing))

    def write_labels(self) -> Steps:
        """Write the label maps over worker processes, and score those that have masks."""
        assert self.chain.labels is not None
        target = self.folders.labels / "png"
        source = self.folders.walk / "maps" if self.chain.walks else self.folders.maps
        missing = without(self.samples, target, ".png")
        jobs = (
            (
                s.image_id,
                LabelJob(
                    s,
                    source / f"{s.image_id}.npz",
                    target / f"{s.image_id}.png",
                    self.chain.labels,
                ),
            )
            for s in missing
        )
        num_workers = self.task.num_workers
        for done, _ in enumerate(pool_map(write_label, jobs, num_workers=num_workers), start=1):
            yield done, len(missing)
        if self.chain.labels.background == "fixed" and not read_json(target.parent / "score.json"):
            trained = {sample.image_id for sample in self.samples}
            ids = [i for i in self.dataset.image_ids(self.run.data.eval_split) if i in trained]
            score = score_folder(target, self.dataset, ids)
            write_json(target.parent / "score.json", asdict(score))

    def _confident(self, sample: Sample) -> NDArray[np.uint8]:
        assert self.chain.labels is not None
        walk = self.chain.labels.random_walk
        return confident_labels(
            read_cams(self.folders.maps / f"{sample.image_id}.npz"), sample.labels,
            foreground_score=walk.confident_foreground,
            background_score=walk.confident_background,
        )  # fmt: skip

    def _affinity_net(self) -> AffinityNet:
        assert self.chain.labels is not None
        return build_affinity_net(
            self.run.network, self.chain.labels.random_walk, weights_file=self.task.weights_file
        )

    def _restore(self, checkpoints: CheckpointFolder, model: nn.Module) -> None:
        if checkpoints.restore(model).epoch == 0:
            raise StoreError(
                f"{checkpoints.folder}: no readable checkpoint of a finished training; delete "
                f"{checkpoints.folder.parent} to train again"
            )

    def _write_cams(self, images: Iterable[ImageCams], folder: Path, total: int) -> Steps:
        for done, image in enumerate(images, start=1):
            write_cams(folder / f"{image.sample.image_id}.npz", image.cams)
            yield done, total
