"""Training of the CAM network, as a stage, and the trained network for later stages."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from sweeps.stages.stage import Place, Record, Steps, TrainingStage
from sweeps.store.code_version import environment
from sweeps.store.store import Folder, write_config
from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.networks.cam_net import CamNet
from wsss.networks.random_weights import DRAWING
from wsss.training.cam import build_cam_net, train_cam
from wsss.training.diagnosis.learning import PriorWarning, find_dead_maps


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    epochs: int
    checkpoint: str
    """Name of its last checkpoint."""
    train_seconds: float
    environment: dict[str, Any]


@dataclass(frozen=True)
class TrainCam(TrainingStage):
    """A trained CAM network. Settings of the scoring have no effect."""

    room: ClassVar[str] = "cams"
    title: ClassVar[str] = "train CAM"

    config: RunConfig
    assess: Callable[[CamNet, int], dict[str, float]] | None = field(default=None, compare=False)
    """Called with network and epoch after each epoch but the last; its numbers are added to the
    epoch's record. Changes no result."""

    def id(self) -> str:
        """All settings that training depends on."""
        return cam_id(self.config)

    def run(self, place: Place, folder: Folder) -> Steps:
        """Train from the last checkpoint; yield each epoch, and a warning when it is due.

        The first rank adds a warning of dead maps to an epoch's record. Raises what `train_cam`
        does.
        """
        config, first = self.config, place.process.is_first
        samples = place.dataset.samples(config.data.train_split)
        num_classes = len(place.dataset.classes)
        model = build_cam_net(config, samples, num_classes, weights_file=place.weights_file)
        if first:
            write_config(folder.path / "config.json", config)
            if not folder.checkpoint_names():
                folder.clear_warning()
        epoch = 0.0
        for record in train_cam(
            model,
            config,
            samples,
            process=place.process,
            checkpoints=self.own_checkpoints(folder, place),
            limits=place.conduct.limits,
        ):
            numbers: dict[str, Any]
            if isinstance(record, PriorWarning):
                if first:
                    folder.warn(asdict(record) | {"message": str(record)})
                    folder.share()
                numbers = {"epoch": epoch, "warning": str(record)}
            else:
                epoch = float(record.epoch)
                numbers = {key: float(value) for key, value in record.metrics().items()}
                if first:
                    folder.add_epoch(record.to_json())
                    if dead := find_dead_maps(folder.epochs(), config):
                        numbers["dead_maps"] = str(dead)
                if self.assess and record.epoch < config.train.epochs:
                    numbers |= self.assess(model, record.epoch)
                    model.train()  # train_cam sets the mode only once, at its start
            yield Record(self, epoch / config.train.epochs, numbers)
        return trained(folder, place)


def trained(folder: Folder, place: Place) -> Trained:
    """Return the summary of a training that has ended in this folder."""
    epochs = folder.epochs()
    return Trained(
        epochs=len(epochs),
        checkpoint=(folder.checkpoint_names() or [""])[-1],
        train_seconds=sum(record["seconds"] for record in epochs),
        environment=environment(place.process),
    )


def trained_cam(config: RunConfig, place: Place) -> CamNet:
    """Return the network of a finished training, downloaded if need be. Raises StoreError."""
    return load_cam(config, place.store.cam(cam_id(config)), len(place.dataset.classes))


def load_cam(config: RunConfig, folder: Folder, num_classes: int) -> CamNet:
    """Return the network of a finished training in this folder, downloaded if need be.

    num_classes: without the background. Raises StoreError.
    """
    # The checkpoint replaces all initial weights and statistics.
    network = config.network.model_copy(update={"weights": "none"})
    with DRAWING:
        model = CamNet(network, num_classes).to(memory_format=torch.channels_last)
    TrainCam(config).restore(model, folder, config.train.epochs)
    return model
