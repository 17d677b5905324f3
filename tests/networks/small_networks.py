"""Small networks for tests, and batch norms that are seen in what they give."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from wsss.config import NetworkConfig
from wsss.networks.parts.conv_norm import batch_norms


def network(**settings: Any) -> NetworkConfig:
    small = {
        "backbone": "resnet10_narrow",
        "weights": "none",
        "feature_map": "plain",
        "frozen_stages": 0,
    }
    widths = {"fpn_channels": 32, "atrous_channels": 16}
    return NetworkConfig.model_validate(small | widths | settings)


def scramble_norms(module: nn.Module) -> None:
    """Give each batch norm statistics and an affine map which leave their mark."""
    generator = torch.Generator().manual_seed(1)
    for norm in batch_norms(module):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        for tensor, low, high in (
            (norm.running_mean, -0.2, 0.2),
            (norm.running_var, 0.6, 1.6),
            (norm.weight.data, 0.5, 1.2),
            (norm.bias.data, -0.2, 0.4),
        ):
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))


def torchvision_maps(model: Any, x: Tensor) -> list[Tensor]:
    """The maps of stages 2 to 5 of an unmodified torchvision network."""
    maps = []
    if isinstance(model, models.MobileNetV2):
        for index, layer in enumerate(model.features):
            x = layer(x)
            if index in (3, 6, 13, 18):
                maps.append(x)
        return maps
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        maps.append(x)
    return maps
