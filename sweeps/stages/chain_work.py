"""What the stages of a chain share: the task, and where things lie on this machine."""

from dataclasses import dataclass, field
from pathlib import Path

from sweeps.plan.chain import ChainConfig, ChainFolders
from sweeps.stages.task import TrialTask
from sweeps.store.store import Store, open_store
from wsss.data.voc import Sample
from wsss.identity import cam_id
from wsss.label_stages import LabelTask
from wsss.training.execution import Execution

TRAIN_CAM, TRAIN_DEEPLAB, PREDICT = "train CAM", "train DeepLab", "predict"
"""The stages beside those of the labels."""


@dataclass(frozen=True)
class ChainTask:
    """A chain, and where things lie on this machine."""

    chain: ChainConfig
    store: Path
    data: Path
    weights_file: Path | None
    execution: Execution = field(default_factory=Execution)
    remote: str | None = None
    """s3://bucket/prefix; then the store is this machine's mirror of it, whatever `store` says."""

    def open_store(self) -> Store:
        """Return the store as it is on this machine."""
        return open_store(self.remote or self.store)

    @property
    def folders(self) -> ChainFolders:
        """Where the stages keep their results on this machine."""
        return ChainFolders(self.open_store().root, self.chain)

    def cam_training(self) -> TrialTask:
        """Return the trial that trains and scores the CAM network."""
        weights = str(self.weights_file) if self.weights_file else None
        run = self.chain.run.model_dump(mode="json")
        return TrialTask(run, str(self.store), str(self.data), weights, self.execution, self.remote)

    def labelling(self) -> LabelTask:
        """Return the part from the CAM network to the labels of the training images."""
        assert self.chain.labels is not None
        folders = self.folders
        return LabelTask(
            run=self.chain.run,
            labels=self.chain.labels,
            data=self.data,
            weights_file=self.weights_file,
            checkpoints=self.open_store().cam(cam_id(self.chain.run)).checkpoints,
            maps=folders.maps,
            walk=folders.walk,
            target=folders.labels,
            split=self.chain.run.data.train_split,
            execution=self.execution,
        )


def without(samples: list[Sample], folder: Path, suffix: str) -> list[Sample]:
    """Return the samples of which the folder has no file yet."""
    there = {path.name for path in folder.glob(f"*{suffix}")}
    return [sample for sample in samples if f"{sample.image_id}{suffix}" not in there]
