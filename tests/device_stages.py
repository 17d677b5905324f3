"""The switches that may count on a device, and the computing parts of each training step.

Legend: B batch, V views, K classes, L labels, S crop size, h w feature size.
"""

import pytest
import torch
from _pytest.mark import ParameterSet
from switches import Values, in_pairs, switches
from torch import Tensor

from wsss.config import NetworkConfig, RunConfig, Settings, TrainConfig, ViewsConfig
from wsss.data.loading import CropBatch
from wsss.labels.affinity_labels import AffinityLosses, affinity_losses, labels_at, pair_kinds
from wsss.method.losses import CamLosses, cam_losses
from wsss.method.views import network_inputs
from wsss.networks.affinity_net import AffinityNet, neighbour_pairs, pair_distances
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import DeepLab, build_deeplab, upsample
from wsss.segmentation_config import DeepLabConfig, RandomWalkConfig
from wsss.training.segmentation import nearest_labels, pixel_cross_entropy

NUM_CLASSES = 5
BATCH_SIZE = 2
CROP = 96

NOT_ON_THE_DEVICE: dict[type[Settings], dict[str, str]] = {
    TrainConfig: {
        "resize": "crops are cut on the CPU",
        "horizontal_flip": "crops are cut on the CPU",
    },
    DeepLabConfig: {
        "head_bias_decay": "a number in the optimiser",
        "test_crf": "the CRF works on arrays",
    },
    RandomWalkConfig: {"momentum": "TrainConfig's, which its SGD is built from"},
}
"""Switches which cannot put a tensor on the wrong device, and why."""


def on_device(model: type[Settings]) -> Values:
    """Return the switches that count on a device."""
    return switches(model, without=NOT_ON_THE_DEVICE.get(model, {}))


def all_on(section: str, model: type[Settings]) -> dict[str, bool]:
    """Return the settings of a section of RunConfig that switch on all it has."""
    kinds = switches(model).items()
    return {f"{section}.{name}": True for name, values in kinds if values == (False, True)}


def rows(model: type[Settings]) -> list[ParameterSet]:
    """Return settings that try these switches in all pairs, as parameters of a test."""
    found = in_pairs(on_device(model))
    return [pytest.param(row, id=" ".join(map(str, row.values()))) for row in found]


def crops(size: int, device: torch.device) -> CropBatch:
    """Return a batch of crops, moved to the device as a loop does it."""
    pixels = torch.full((BATCH_SIZE, 3, size, size), 100, dtype=torch.uint8)
    boxes = torch.tensor([[0, 0, size, size], [2, 3, size - 4, size]])
    targets = torch.eye(BATCH_SIZE, NUM_CLASSES)
    return CropBatch(pixels.to(device), boxes.to(device), targets.to(device))


def label_maps(size: int, device: torch.device) -> Tensor:
    """Return [B, S, S] of background, a class and unsure pixels."""
    maps = torch.zeros(BATCH_SIZE, size, size, dtype=torch.uint8)
    maps[:, : size // 2] = NUM_CLASSES
    maps[:, :, -2:] = 255
    return maps.to(device)


def cam_net(network: NetworkConfig, device: torch.device) -> CamNet:
    """Build from random weights on the CPU, then move, as the training does."""
    network = network.model_copy(update={"weights": "none"})
    model = CamNet(network, NUM_CLASSES)
    return model.to(device, memory_format=torch.channels_last).train()


def cam_step(model: CamNet, batch: CropBatch, config: RunConfig) -> CamLosses:
    """Adjust a batch, show it to the network, and return the losses."""
    inputs = network_inputs(batch.pixels, batch.boxes, config.views)
    bf16 = config.train.precision == "bf16"
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        logits, cams = all_views(model, inputs)
    return cam_losses(
        logits, cams, batch.targets, config.views, config.transfer,
        over_classes=config.train.cls_reduction, over_views=config.train.cls_over_views,
    )  # fmt: skip


def all_views(model: CamNet, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """[V, B, 3, S, S] -> logits [V, B, K] and cams [V, B, K, h, w].

    Views share a forward unless batch statistics would mix them.
    """
    groups = [inputs.flatten(0, 1)] if model.frozen_norm else list(inputs)
    parts = [model(x.contiguous(memory_format=torch.channels_last)) for x in groups]
    logits, cams = (
        torch.cat(each).unflatten(0, inputs.shape[:2]) for each in zip(*parts, strict=True)
    )
    return logits, cams


def deeplab(config: DeepLabConfig, device: torch.device) -> DeepLab:
    """Build from random weights on the CPU, then move."""
    config = config.model_copy(update={"weights": "none"})
    return build_deeplab(config, NUM_CLASSES).to(device).train()


def deeplab_step(model: DeepLab, batch: CropBatch, labels: Tensor, config: DeepLabConfig) -> Tensor:
    """Return the cross entropy per labelled pixel."""
    inputs = network_inputs(batch.pixels, batch.boxes, ViewsConfig())[0]
    bf16 = config.precision == "bf16"
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
    if config.loss_size == "image":
        logits = upsample(logits, labels.shape[-2:])
    else:
        labels = nearest_labels(labels, logits.shape[-2:])
    return pixel_cross_entropy(logits, labels) / (labels != 255).sum().float().clamp_min(1)


def affinity_net(
    network: NetworkConfig, config: RandomWalkConfig, device: torch.device
) -> AffinityNet:
    """Build from random weights on the CPU, then move."""
    model = AffinityNet(network.model_copy(update={"weights": "none"}), config)
    return model.to(device, memory_format=torch.channels_last).train()


def affinity_step(
    model: AffinityNet, batch: CropBatch, labels: Tensor, config: RandomWalkConfig
) -> AffinityLosses:
    """Return the losses of near pairs."""
    x = network_inputs(batch.pixels, batch.boxes, ViewsConfig())[0]
    features = model(x.contiguous(memory_format=torch.channels_last))
    height, width = features.shape[-2:]
    pairs = neighbour_pairs(height, width, config.radius, device=labels.device)
    kinds = pair_kinds(labels_at(labels, (height, width)), pairs)
    return affinity_losses(pair_distances(features, config.radius), kinds)
