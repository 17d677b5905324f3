"""The switches that may count on a device, networks and batches.

Legend: B batch, V views, K classes, L labels, S crop size, h w feature size.
"""

from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from switches import Values, each_once, in_pairs, switches

from wsss.config import NetworkConfig, Settings, TrainConfig
from wsss.data.loading.batches import CropBatch
from wsss.networks.affinity_net import AffinityNet
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import DeepLab, build_deeplab
from wsss.presets import TINY_LABELS
from wsss.segmentation_config import DeepLabConfig, RandomWalkConfig

NUM_CLASSES = 5
BATCH_SIZE = 2
CROP = 96
FEW_PAIRS = TINY_LABELS.random_walk.model_copy(update={"radius": 2})
"""Of pixels: each offset within the radius takes its operations."""

NOT_ON_THE_DEVICE: dict[type[Settings], dict[str, str]] = {
    TrainConfig: {
        "resize": "crops are cut on the CPU",
        "horizontal_flip": "crops are cut on the CPU",
    },
    DeepLabConfig: {
        "backbone": "the CAM network's, each of which it tries",
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
    """Return settings that try these switches in all pairs, as parameters of a test.

    A backbone gives maps to the others, whichever it is: each is tried by itself.
    """
    values = dict(on_device(model))
    backbones = values.pop("backbone", ())
    return _parameters([*in_pairs(values), *({"backbone": name} for name in backbones)])


def few_rows(model: type[Settings]) -> list[ParameterSet]:
    """Return settings that hold every value of these switches, as parameters of a test."""
    return _parameters(each_once(on_device(model)))


def _parameters(found: list[dict[str, Any]]) -> list[ParameterSet]:
    return [pytest.param(row, id=" ".join(map(str, row.values()))) for row in found]


def crops(size: int, device: torch.device) -> CropBatch:
    """Return a batch of crops, moved to the device as a loop does it."""
    pixels = torch.full((BATCH_SIZE, 3, size, size), 100, dtype=torch.uint8)
    boxes = torch.tensor([[0, 0, size, size], [2, 3, size - 4, size]])
    targets = torch.eye(BATCH_SIZE, NUM_CLASSES)
    return CropBatch(pixels.to(device), boxes.to(device), targets.to(device))


def labelled(size: int, device: torch.device) -> CropBatch:
    """Return crops with label maps [B, S, S] of background, a class and unsure pixels."""
    maps = torch.zeros(BATCH_SIZE, size, size, dtype=torch.uint8)
    maps[:, : size // 2] = NUM_CLASSES
    maps[:, :, -2:] = 255
    return crops(size, device)._replace(targets=maps.to(device))


def cam_net(network: NetworkConfig, device: torch.device) -> CamNet:
    """Build from random weights on the CPU, then move, as the training does."""
    network = network.model_copy(update={"weights": "none"})
    model = CamNet(network, NUM_CLASSES)
    return model.to(device, memory_format=torch.channels_last).train()


def deeplab(config: DeepLabConfig, device: torch.device) -> DeepLab:
    """Build from random weights on the CPU, then move."""
    config = config.model_copy(update={"weights": "none"})
    return build_deeplab(config, NUM_CLASSES).to(device).train()


def affinity_net(
    network: NetworkConfig, config: RandomWalkConfig, device: torch.device
) -> AffinityNet:
    """Build from random weights on the CPU, then move."""
    model = AffinityNet(network.model_copy(update={"weights": "none"}), config)
    return model.to(device, memory_format=torch.channels_last).train()
