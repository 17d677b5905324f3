"""What an epoch's record tells of the maps, against loops and gradients taken one by one."""

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from wsss.config import TransferConfig, ViewsConfig
from wsss.method.diagnostics import LARGE, map_shares, pull_products, pulls
from wsss.method.losses import CamLosses, cam_losses

PRESENT = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)
BOTH = ViewsConfig(enhanced=True, decreased=True)


def some_cams() -> Tensor:
    """Raw CAMs [3, 3, 4, 5, 3], some of whose maps are empty."""
    generator = torch.Generator().manual_seed(3)
    cams = torch.randn(3, 3, 4, 5, 3, generator=generator, dtype=torch.float64)
    cams[0, 0, 2] = -cams[0, 0, 2].abs()  # present
    cams[1, 2, :2] = -cams[1, 2, :2].abs()  # present
    cams[2, 1, 0] = -1.0  # absent
    return cams


def test_shares_of_dead_maps_and_of_area_equal_the_loop() -> None:
    cams = some_cams()
    found = map_shares(cams, PRESENT)
    for view in range(3):
        dead, area = [], []
        for image in range(3):
            of_image = [k for k in range(4) if PRESENT[image, k]]
            shown = reference.normalise(cams[view, image].numpy(), PRESENT[image].numpy())
            dead.append(np.mean([float(cams[view, image, k].max()) <= 0 for k in of_image]))
            area.append(np.mean([(shown[k] > LARGE).mean() for k in of_image]))
        assert found[:, view].tolist() == pytest.approx([np.mean(dead), np.mean(area)])
    assert found[0].tolist() == pytest.approx([1 / 6, 2 / 9, 0])


def test_pulls_are_norms_and_cosines_of_each_losss_own_gradient() -> None:
    transfer = TransferConfig(lambda_s=0.3, lambda_bs=1.7)

    def losses_of(cams: Tensor) -> CamLosses:
        return cam_losses(cams.mean((3, 4)), cams, PRESENT, BOTH, transfer)

    gradients = []
    for term, factor in (("cls", 1.0), ("similarity", 0.3), ("background", 1.7)):
        cams = some_cams().requires_grad_()
        (factor * getattr(losses_of(cams), term)).backward()
        gradients.append(cams.grad.flatten())
    norms = [float(g.norm()) for g in gradients]
    assert min(norms) > 0
    pairs = ((0, 1), (0, 2), (1, 2))
    cosines = [float(gradients[a] @ gradients[b]) / norms[a] / norms[b] for a, b in pairs]
    found = pulls(pull_products(some_cams(), losses_of, (0.3, 1.7)).tolist())
    assert found == pytest.approx([*norms, *cosines], rel=1e-6)
    before_their_start = pulls(pull_products(some_cams(), losses_of, (0.0, 0.0)).tolist())
    assert before_their_start == pytest.approx([norms[0], 0, 0, 0, 0, 0])
