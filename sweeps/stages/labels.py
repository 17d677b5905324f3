"""The stages from a trained CAM network to scored pseudo-labels.

infer CAMs -> (learn affinity -> random walk) -> write labels
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sweeps.plan.chains.chain import ChainConfig
from sweeps.stages.stage import PerImage, Place, Record, Stage, Steps, TrainingStage
from sweeps.stages.train_cam import TrainCam, trained, trained_cam
from sweeps.store.store import Folder
from wsss.basics.pool import pool_map
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.segmentation_score import SegmentationScore, score_folder
from wsss.labels.cam_files import cams_of, write_cams
from wsss.labels.infer import ImageCams, infer_cams
from wsss.labels.pseudo_label import confident_label, pseudo_label
from wsss.labels.refine.random_walk import walk_labels
from wsss.labels.refine.refined import LabelJob, write_label
from wsss.networks.affinity_net import AffinityNet
from wsss.segmentation_config import RandomWalkConfig
from wsss.training.affinity import affinity_training, build_affinity_net


@dataclass(frozen=True)
class OfLabels(PerImage):
    """A stage with a file for each image that gets a pseudo-label."""

    chain: ChainConfig

    def image_ids(self, place: Place) -> list[str]:
        """Return these images."""
        return place.dataset.image_ids(self.chain.label_split)


class InferCams(OfLabels):
    """CAMs as files. An image's CAMs do not depend on the split."""

    room: ClassVar[str] = "maps"
    title: ClassVar[str] = "infer CAMs"
    suffix: ClassVar[str] = ".npz"

    def id(self) -> str:
        """Network, scales and flip."""
        return self.chain.maps_id

    def needs(self) -> tuple[Stage, ...]:
        """The network."""
        return (TrainCam(self.chain.run),)

    def do(self, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Infer and write the images' CAMs."""
        run, samples = self.chain.run, _samples(place, image_ids)
        model, device = trained_cam(run, place), place.process.device
        return _write_cams(self, infer_cams(model, samples, run.labels, device=device), place)


@dataclass(frozen=True)
class LearnAffinity(TrainingStage):
    """An affinity network, trained on the CAMs' confident labels."""

    room: ClassVar[str] = "walks"
    title: ClassVar[str] = "learn affinity"

    chain: ChainConfig

    def id(self) -> str:
        """CAMs, images and settings of the random walk."""
        return self.chain.walk_id

    def needs(self) -> tuple[Stage, ...]:
        """The CAMs."""
        return (InferCams(self.chain),)

    def run(self, place: Place, folder: Folder) -> Steps:
        """Train on one device; yield each epoch."""
        walk, maps = self.chain.random_walk, InferCams(self.chain).pulled(place)
        training = affinity_training(
            affinity_net(self.chain, place),
            place.dataset.samples(self.chain.label_split),
            partial(_confident, maps, place.dataset, walk),
            walk,
            process=place.process,
            checkpoints=self.own_checkpoints(folder, place),
        )
        for epoch in training.epochs():
            folder.add_epoch(epoch.to_json())
            yield Record(self, epoch.epoch / walk.epochs, epoch.metrics())
        return trained(folder, place)


class Walk(OfLabels):
    """CAMs after the random walk, as files."""

    room: ClassVar[str] = "walks"
    title: ClassVar[str] = "random walk"
    suffix: ClassVar[str] = ".npz"

    def id(self) -> str:
        """The affinity network's id, which covers the walk's settings."""
        return f"{self.chain.walk_id}/maps"

    def needs(self) -> tuple[Stage, ...]:
        """The CAMs and the affinity network."""
        return InferCams(self.chain), LearnAffinity(self.chain)

    def do(self, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Spread the images' CAMs by the walk."""
        network, walk, dataset = LearnAffinity(self.chain), self.chain.random_walk, place.dataset
        maps = InferCams(self.chain).pulled(place, image_ids)
        model = affinity_net(self.chain, place)
        network.restore(model, place.store.folder(network.rel), walk.epochs)
        plain = (
            ImageCams(sample, _read_cams(maps, dataset, sample))
            for sample in _samples(place, image_ids)
        )
        walked = walk_labels(model, plain, walk, device=place.process.device)
        return _write_cams(self, walked, place)


class WriteLabels(OfLabels):
    """Pseudo-labels of the training images, as palette PNGs of the images' size."""

    room: ClassVar[str] = "labels"
    title: ClassVar[str] = "write labels"
    suffix: ClassVar[str] = ".png"

    def id(self) -> str:
        """CAMs and label settings."""
        return self.chain.labels_id

    @property
    def images_rel(self) -> str:
        """Path in the store of the PNGs."""
        return f"{self.rel}/png"

    def needs(self) -> tuple[Stage, ...]:
        """The CAMs that become labels."""
        return (self._cams,)

    def do(self, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Refine and write the images' labels."""
        cams = self._cams.pulled(place, image_ids)
        target, labels = place.store.folder(self.images_rel).path, self.chain.labels
        assert labels is not None
        device, num_workers = place.process.device, place.crew.num_workers
        if labels.refinement == "pamr" and device.type != "cpu":
            num_workers = 0  # each would take memory of the GPU

        def job(sample: Sample) -> LabelJob:
            name = sample.image_id
            path, png = cams / f"{name}.npz", target / f"{name}.png"
            return LabelJob(sample, path, png, labels, self.source(place, name), device)

        jobs = ((sample.image_id, job(sample)) for sample in _samples(place, image_ids))
        for image_id, _ in pool_map(write_label, jobs, num_workers=num_workers):
            yield image_id

    def source(self, place: Place, image_id: str) -> str:
        """Return a PNG's source: after a walk, which learns from all images, the whole data."""
        if self.chain.walks and place.sources:
            return f"{self.id()} {place.data_digest}"
        return super().source(place, image_id)

    @property
    def _cams(self) -> InferCams | Walk:
        return Walk(self.chain) if self.chain.walks else InferCams(self.chain)


def label_score(chain: ChainConfig, place: Place) -> SegmentationScore | None:
    """Score the pseudo-labels of the evaluation split (VOC's own `train`) against its masks.

    None if there are no pseudo-labels or some are lost, if they leave pixels out, and if an image
    has no mask.
    """
    stage, dataset = WriteLabels(chain), place.dataset
    written = set(stage.image_ids(place))
    scored = [i for i in dataset.image_ids(chain.run.data.eval_split) if i in written]
    if not (scored and all(map(dataset.has_mask, scored)) and stage.is_done(place)):
        return None
    if chain.labels is None or chain.labels.background != "fixed":
        return None
    return score_folder(stage.pulled(place, scored), dataset, scored)


def affinity_net(chain: ChainConfig, place: Place) -> AffinityNet:
    """Build a chain's affinity network."""
    return build_affinity_net(chain.run.network, chain.random_walk, weights_file=place.weights_file)


def _samples(place: Place, image_ids: list[str]) -> list[Sample]:
    dataset = place.dataset
    return [dataset.sample(image_id) for image_id in image_ids]


def _read_cams(maps: Path, dataset: VocDataset, sample: Sample) -> NDArray[np.float32]:
    width, height = dataset.image_size(sample.image_id)
    return cams_of(maps / f"{sample.image_id}.npz", sample.labels, (height, width))


def _confident(
    maps: Path, dataset: VocDataset, walk: RandomWalkConfig, sample: Sample
) -> NDArray[np.uint8]:
    """Return the labels of which an image's CAMs are sure; a function that can be pickled."""
    cams = _read_cams(maps, dataset, sample)
    return confident_label(
        lambda score: pseudo_label(cams, sample.labels, score),
        walk.confident_foreground,
        walk.confident_background,
    )


def _write_cams(stage: PerImage, images: Iterable[ImageCams], place: Place) -> Iterator[str]:
    folder = place.store.folder(stage.images_rel).path
    for sample, cams in images:
        name = sample.image_id
        path, source = folder / f"{name}.npz", stage.source(place, name)
        write_cams(path, cams, sample.labels, source=source)
        yield name
