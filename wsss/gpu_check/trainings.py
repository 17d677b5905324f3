"""What is checked: one step of each training, on a made-up batch.

Legend: B batch, K = 20 classes, S crop size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import nn

from wsss.config import NetworkConfig, Precision, RunConfig, Settings, ViewsConfig
from wsss.data.loading.batches import CropBatch
from wsss.method.views import network_inputs
from wsss.networks.backbone import build_backbone
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import build_deeplab
from wsss.networks.random_weights import drawn_from
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS, PRESETS
from wsss.training.affinity import AffinityStep, build_affinity_net
from wsss.training.cam import CamStep
from wsss.training.execution import Execution
from wsss.training.loop import Step
from wsss.training.process import Process
from wsss.training.segmentation import SegmentationStep
from wsss.weights import NAMES, WeightsError, file_digest

NUM_CLASSES = 20
PARTS = tuple(
    name
    for name, field in NetworkConfig.model_fields.items()
    if field.annotation is bool and name != "affinity_residual"  # a setting of a part
)
"""Switches of the focused-unfocused module."""
FULL_MODULE = {f"network.{part}": True for part in PARTS}
BOTH_VIEWS = {
    f"views.{n}": True for n, field in ViewsConfig.model_fields.items() if field.annotation is bool
}
CELLS: dict[str, dict[str, Any]] = {"B0": {}, "F0": FULL_MODULE, "F3": FULL_MODULE | BOTH_VIEWS}
"""B0: bare network, one view; F0: the full module; F3: the full module and both views."""
BACKBONES = get_args(NetworkConfig.model_fields["backbone"].annotation)

Weights = dict[str, tuple[str, Path]]
"""Backbone -> name of its initial weights in a configuration, and their file."""
RANDOM: tuple[str, None] = ("none", None)
"""Of all other backbones."""


def read_weights(path: Path | None) -> Weights:
    """Return the weights of a file; {} for `none`. Raises WeightsError if it fits no backbone."""
    if path is None or str(path) == "none":
        return {}
    if str(path) in NAMES:
        raise WeightsError(
            f"--weights {path}: this check downloads nothing; give the file of the weights, or none"
        )
    name, reasons = file_digest(path), list[str]()
    for backbone in BACKBONES:
        try:
            build_backbone(NetworkConfig(backbone=backbone, weights=name), path)
        except WeightsError as error:
            reasons.append(str(error))
        else:
            return {backbone: (name, path)}
    raise WeightsError("\n".join(dict.fromkeys(reasons)))


@dataclass(frozen=True)
class TrainingCase:
    """A training and a batch for its steps."""

    build: Callable[[], Any]
    """Makes the network, on the CPU and the same each time."""
    settings: Settings
    step_of: Callable[..., Step]
    """Moves a network to a device and returns its step under the settings."""
    batch: CropBatch
    """On the CPU."""
    precision: str = "precision"
    """Name of that setting."""

    def step(
        self,
        model: nn.Module,
        device: torch.device,
        precision: Precision,
        execution: Execution | None = None,
    ) -> Step:
        """Move a network to a device; return its step there."""
        process = Process(device=device, execution=execution or Execution())
        settings = apply_overrides(self.settings, {self.precision: precision})
        return self.step_of(model, settings, process)

    def warm(self, device: torch.device, precision: Precision) -> tuple[Step, CropBatch]:
        """Return a new network's step that was taken twice, and its batch, pinned for a GPU."""
        step, batch = self.step(self.build(), device, precision), self.batch
        if device.type == "cuda":
            batch = CropBatch(*(part.pin_memory() for part in batch))
        for _ in range(2):  # the first loads kernels, and chooses the micro-batch
            step(batch)
        return step, batch


def cam_case(config: RunConfig, weights: Weights) -> TrainingCase:
    """Return a CAM training; new frozen batch norms are calibrated on made-up images."""
    name, file = weights.get(config.network.backbone, RANDOM)
    config = apply_overrides(config, {"network.weights": name})
    batch = made_up_batch(config.train.batch_size, config.train.crop_size)

    def build() -> CamNet:
        with drawn_from(config.rng_seed):
            model = CamNet(config.network, NUM_CLASSES, weights_file=file)
        model = model.to(memory_format=torch.channels_last)
        if model.frozen_norm and model.new_norms:
            model.calibrate(network_inputs(batch.pixels[:2], batch.boxes[:2], config.views)[0])
        return model

    return TrainingCase(build, config, CamStep, batch, "train.precision")


def other_cases(preset: str, crop: int, weights: Weights) -> dict[str, TrainingCase]:
    """Return a preset's trainings of the other two networks, with two images of about `crop`."""
    network, deeplab = PRESETS[preset].network, DEEPLAB_PRESETS[preset]
    name, own_file = weights.get(network.backbone, RANDOM)
    network = network.model_copy(update={"weights": name})
    name, file = weights.get(deeplab.backbone, RANDOM)
    changed = {"weights": name, "crop_size": crop + 1, "batch_size": 2}
    deeplab = deeplab.model_copy(update=changed)
    walk = LABEL_PRESETS[preset].random_walk.model_copy(update={"crop_size": crop, "batch_size": 2})
    return {
        "DeepLab": TrainingCase(
            lambda: build_deeplab(deeplab, NUM_CLASSES, weights_file=file),
            deeplab,
            SegmentationStep,
            made_up_batch(2, crop + 1, label_maps=True),
        ),
        "affinity network": TrainingCase(
            lambda: build_affinity_net(network, walk, weights_file=own_file),
            walk,
            AffinityStep,
            made_up_batch(2, crop, label_maps=True),
        ),
    }


def made_up_batch(size: int, crop: int, *, label_maps: bool = False) -> CropBatch:
    """Return a batch of blobs and noise with an eighth of padding, the same each time.

    label_maps: targets are label maps [B, S, S], else image-level labels [B, K].
    """
    generator, end = torch.Generator().manual_seed(0), crop - crop // 8
    blots = F.interpolate(
        200 * torch.rand(size, 3, 5, 5, generator=generator), crop, mode="bilinear"
    )
    pixels = (blots + 55 * torch.rand(blots.shape, generator=generator)).to(torch.uint8)
    pixels[:, :, end:] = 0
    if label_maps:
        cells = torch.randint(0, 4, (size, 1, 6, 6), generator=generator, dtype=torch.uint8)
        targets = F.interpolate(cells, crop)[:, 0]
        targets[targets == 3] = 255
        targets[:, end:] = 255
    else:
        targets = (torch.rand(size, NUM_CLASSES, generator=generator) < 0.1).float()
        targets[:, 0] = 1
    boxes = torch.tensor([[0, 0, end, crop]] * size)
    return CropBatch(pixels.contiguous(memory_format=torch.channels_last), boxes, targets)
