"""The trainings that are checked: network, objective, optimiser and a made-up batch.

Legend: B batch, K = 20 classes, S crop size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from wsss.config import NetworkConfig, Precision, RunConfig, ViewsConfig
from wsss.data.loading import CropBatch
from wsss.method.views import network_inputs
from wsss.networks.affinity_net import AffinityNet
from wsss.networks.backbone import build_backbone
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import DeepLab, build_deeplab
from wsss.overrides import apply_overrides
from wsss.segmentation_config import DeepLabConfig, RandomWalkConfig
from wsss.training.affinity import affinity_step, build_affinity_net
from wsss.training.cam import cam_step
from wsss.training.execution import Execution
from wsss.training.loop import Step
from wsss.training.process import Process
from wsss.training.segmentation import segmentation_step
from wsss.weights import WeightsError, file_digest

NUM_CLASSES = 20
PARTS = tuple(
    name
    for name, field in NetworkConfig.model_fields.items()
    if field.annotation is bool and name != "affinity_residual"  # which is of a part
)
"""Switches of the focused-unfocused module."""
FULL_MODULE = {f"network.{part}": True for part in PARTS}
VIEWS = tuple(n for n, field in ViewsConfig.model_fields.items() if field.annotation is bool)
BOTH_VIEWS = {f"views.{view}": True for view in VIEWS}
CELLS: dict[str, dict[str, Any]] = {"B0": {}, "F0": FULL_MODULE, "F3": FULL_MODULE | BOTH_VIEWS}
"""B0: bare network, one view; F0: the full module; F3: the full module and both views."""
BACKBONES = get_args(NetworkConfig.model_fields["backbone"].annotation)


@dataclass(frozen=True)
class Weights:
    """Initial weights for one backbone; every other one starts from random numbers."""

    backbone: str = ""
    name: str = "none"
    """In a configuration."""
    file: Path | None = None

    def of(self, backbone: str) -> tuple[str, Path | None]:
        """Return a backbone's weights: their name in the configuration, and their file."""
        return (self.name, self.file) if backbone == self.backbone else ("none", None)


def read_weights(path: Path | None) -> Weights:
    """Return the weights of a file. Raises WeightsError if it fits no backbone."""
    if path is None:
        return Weights()
    name, reasons = file_digest(path), []
    for backbone in BACKBONES:
        try:
            build_backbone(NetworkConfig(backbone=backbone, weights=name), path)
        except WeightsError as error:
            reasons.append(error)
        else:
            return Weights(backbone, name, path)
    raise reasons[0]


@dataclass(frozen=True)
class Subject:
    """A training of one step."""

    build: Callable[[], nn.Module]
    """Makes the network, on the CPU and each time the same."""
    step: Callable[[nn.Module, torch.device, Precision, Execution], Step]
    """Moves a network to a device and returns its step there."""
    batch: CropBatch
    """On the CPU."""


def cam_subject(config: RunConfig, weights: Weights) -> Subject:
    """Return a CAM training; new batch norms that stay frozen are calibrated on made-up images."""
    name, file = weights.of(config.network.backbone)
    config = apply_overrides(config, {"network.weights": name})
    batch = made_up_batch(config.train.batch_size, config.train.crop_size)

    def build() -> nn.Module:
        torch.manual_seed(config.rng_seed)
        model = CamNet(config.network, NUM_CLASSES, weights_file=file)
        model = model.to(memory_format=torch.channels_last)
        if model.frozen_norm and model.new_norms:
            with model.calibrating():
                model(network_inputs(batch.pixels[:2], batch.boxes[:2], config.views)[0])
        return model

    def step(
        model: nn.Module, device: torch.device, precision: Precision, execution: Execution
    ) -> Step:
        assert isinstance(model, CamNet)
        own = apply_overrides(config, {"train.precision": precision})
        return cam_step(model, own, process=Process(device=device), execution=execution)

    return Subject(build, step, batch)


def deeplab_subject(config: DeepLabConfig, weights: Weights) -> Subject:
    """Return a training of the segmentation network."""
    name, file = weights.of(config.backbone)
    config = config.model_copy(update={"weights": name})

    def step(
        model: nn.Module, device: torch.device, precision: Precision, execution: Execution
    ) -> Step:
        assert isinstance(model, DeepLab)
        own = config.model_copy(update={"precision": precision})
        return segmentation_step(model, own, process=Process(device=device), execution=execution)

    return Subject(
        lambda: build_deeplab(config, NUM_CLASSES, weights_file=file), step,
        made_up_batch(config.batch_size, config.crop_size, label_maps=True),
    )  # fmt: skip


def affinity_subject(network: NetworkConfig, config: RandomWalkConfig, weights: Weights) -> Subject:
    """Return a training of the affinity network."""
    name, file = weights.of(network.backbone)
    network = network.model_copy(update={"weights": name})

    def step(
        model: nn.Module, device: torch.device, precision: Precision, execution: Execution
    ) -> Step:
        assert isinstance(model, AffinityNet)
        own = config.model_copy(update={"precision": precision})
        return affinity_step(model, own, device=device, execution=execution)

    return Subject(
        lambda: build_affinity_net(network, config, weights_file=file), step,
        made_up_batch(config.batch_size, config.crop_size, label_maps=True),
    )  # fmt: skip


def made_up_batch(size: int, crop: int, *, label_maps: bool = False) -> CropBatch:
    """Return a batch of blots and noise with an eighth of padding, the same each time.

    label_maps: targets are label maps [B, S, S], else image-level labels [B, K].
    """
    generator = torch.Generator().manual_seed(0)
    blots = torch.rand(size, 3, 5, 5, generator=generator) * 200
    pixels = nn.functional.interpolate(blots, size=(crop, crop), mode="bilinear")
    pixels = (pixels + 55 * torch.rand(pixels.shape, generator=generator)).to(torch.uint8)
    end = crop - crop // 8
    pixels[:, :, end:] = 0
    boxes = torch.tensor([[0, 0, end, crop]] * size)
    if label_maps:
        cells = torch.randint(0, 4, (size, 1, 6, 6), generator=generator).float()
        targets = nn.functional.interpolate(cells, size=(crop, crop), mode="nearest")[:, 0]
        targets = torch.where(targets == 3, 255, targets).to(torch.uint8)
        targets[:, end:] = 255
    else:
        targets = (torch.rand(size, NUM_CLASSES, generator=generator) < 0.1).float()
        targets[:, 0] = 1
    return CropBatch(pixels.contiguous(memory_format=torch.channels_last), boxes, targets)
