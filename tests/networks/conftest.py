"""Weights of torchvision's networks that several tests load."""

from pathlib import Path

import pytest
import torch
from small_networks import scramble_norms
from torchvision import models


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts of torchvision networks with scrambled norms, by backbone. To read."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for name in ("resnet18", "mobilenet_v2"):
        torch.manual_seed(2)
        model = models.get_model(name, weights=None)
        scramble_norms(model)
        paths[name] = folder / f"{name}.pth"
        torch.save(model.state_dict(), paths[name])
    return paths
