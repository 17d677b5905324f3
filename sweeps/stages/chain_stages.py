"""All stages of a chain in their order, each kept in the store and never run twice.

    CAM training -> CAMs of the training images -> (affinity, random walk) -> label maps
      -> DeepLab -> predictions on the evaluation split -> score

An interrupted stage goes on where it was. Where the work is done, here or on a cluster, is the
business of the `Place` that is given.
"""

from collections.abc import Iterator
from typing import Protocol

from sweeps.stages.chain_remote import RemoteChain
from sweeps.stages.chain_work import PREDICT, TRAIN_CAM, TRAIN_DEEPLAB, ChainTask
from sweeps.stages.segmentation import SegmentationStages
from sweeps.stages.trial import run_trial
from wsss.label_stages import LEARN, WRITE, LabelStages
from wsss.training.process import Process


class Place(Protocol):
    """Does the work of stages."""

    def train(self, task: ChainTask, stage: str) -> Iterator[float]:
        """Run a training to its end; yield the share done, in [0, 1]."""

    def images(self, task: ChainTask, stage: str, image_ids: list[str]) -> Iterator[str]:
        """Do a stage for these images; yield each id when it is done."""


class Here:
    """This process; labels are refined in `num_workers` more, or in this one if that is 0."""

    def __init__(self, process: Process, *, num_workers: int = 0) -> None:
        self.process, self.num_workers = process, num_workers

    def train(self, task: ChainTask, stage: str) -> Iterator[float]:
        """Run a training in this process."""
        return (record["progress"] for record in training(task, stage, self.process))

    def images(self, task: ChainTask, stage: str, image_ids: list[str]) -> Iterator[str]:
        """Do the images one after the other."""
        return images(task, stage, image_ids, self.process, num_workers=self.num_workers)


def run_chain(task: ChainTask, place: Place) -> Iterator[tuple[str, float, float]]:
    """Run what is missing of a chain; yield (stage, done, total) as it goes.

    Of a chain in a bucket, this machine gets the figures, the predictions and the last network.
    """
    remote = RemoteChain(task)
    for stage in stages_of(task):
        if stage in (TRAIN_CAM, LEARN, TRAIN_DEEPLAB):
            for done in place.train(task, stage):
                yield stage, done, 1.0
            continue
        here = Process()  # listing and scoring need no device
        missing = remote.missing(
            stage,
            SegmentationStages(task, here).missing()
            if stage == PREDICT
            else LabelStages(task.labelling(), here.device).missing(stage),
        )
        if missing:
            for number, _ in enumerate(place.images(task, stage, missing), start=1):
                yield stage, number, len(missing)
        if stage not in (WRITE, PREDICT):
            continue
        remote.pull_to_score(stage)
        if stage == WRITE:
            LabelStages(task.labelling(), here.device).score()
        else:
            SegmentationStages(task, here).score()
        remote.push_scored(stage)


def stages_of(task: ChainTask) -> list[str]:
    """Return the names of a chain's stages, in order."""
    labels = [TRAIN_CAM, *task.labelling().stages] if task.chain.labels else []
    return [*labels, TRAIN_DEEPLAB, PREDICT]


def training(task: ChainTask, stage: str, process: Process) -> Iterator[dict[str, float]]:
    """Run what is missing of a training on this rank; yield numbers, `progress` among them."""
    if stage == TRAIN_CAM:
        yield from run_trial(task.cam_training(), process)
        return
    remote = RemoteChain(task)
    remote.start_training(stage, process)
    if stage == LEARN:
        labels = LabelStages(task.labelling(), process.device)
        for epoch, of in labels.learn_affinity():
            remote.push_training(stage)  # with the checkpoint of the epoch before
            yield {"progress": epoch / of}
    else:
        stages = SegmentationStages(task, process)
        yield from stages.train(after_save=lambda _: remote.push_training(stage))
    if process.is_first:
        remote.push_training(stage)


def images(
    task: ChainTask, stage: str, image_ids: list[str], process: Process, *, num_workers: int = 0
) -> Iterator[str]:
    """Do a stage for these images in this process; yield each id when it is done."""
    remote = RemoteChain(task)
    remote.pull_inputs(stage, image_ids)
    if stage == PREDICT:
        return remote.pushed(stage, SegmentationStages(task, process).predict(image_ids))
    labels = LabelStages(task.labelling(), process.device)
    return remote.pushed(stage, labels.images(stage, image_ids, num_workers=num_workers))
