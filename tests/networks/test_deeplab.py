"""The segmentation network by hand, and in its switches."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss.config import NetworkConfig
from wsss.networks.backbone import build_backbone
from wsss.networks.deeplab import DeepLab
from wsss.segmentation_config import DeepLabConfig


def config(**settings: Any) -> DeepLabConfig:
    base: dict[str, Any] = {"backbone": "resnet10_narrow", "weights": "none", "rates": (1, 2)}
    return DeepLabConfig.model_validate(base | settings)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "resnet10_narrow"])
def test_output_stride_8_sees_what_16_sees_at_every_second_place(backbone: str) -> None:
    # Dilation instead of stride computes the same map on a finer grid. Borders are padded alike.
    maps = []
    for stride in (8, 16):
        torch.manual_seed(3)
        network = NetworkConfig(backbone=backbone, weights="none")  # type: ignore[arg-type]
        model = build_backbone(network, output_stride=stride).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, 32, 48))).float()
            maps.append(model(x)[-2])
    torch.testing.assert_close(maps[0][:, :, ::2, ::2], maps[1], rtol=1e-3, atol=1e-4)


def test_the_logits_are_the_sum_of_the_classifiers_of_all_rates() -> None:
    torch.manual_seed(0)
    model = DeepLab(config(rates=(1, 3, 5)), 4).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone(x)[-1]
        expected = sum(
            F.conv2d(features, layer.weight, layer.bias, padding=rate, dilation=rate)
            for rate, layer in zip((1, 3, 5), model.classifiers, strict=True)
        )
        torch.testing.assert_close(model(x), expected)
    assert len({layer.weight.data_ptr() for layer in model.classifiers}) == 3


def test_new_classifiers_start_small_and_without_bias() -> None:
    torch.manual_seed(0)
    for layer in DeepLab(config(backbone="resnet18", rates=(6, 12)), 20).classifiers:
        assert isinstance(layer, nn.Conv2d)
        assert float(layer.weight.detach().std()) == pytest.approx(
            0.01, rel=0.02
        )  # of 96,768 draws
        assert abs(float(layer.weight.detach().mean())) < 2e-4
        assert not layer.bias.any()


def test_frozen_batch_norms_keep_statistics_scale_and_shift() -> None:
    for kind, frozen in (("frozen", True), ("train", False)):
        torch.manual_seed(0)
        model = DeepLab(config(batch_norm=kind), 4).train()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) > 8
        before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
        model(torch.randn(2, 3, 48, 48)).square().sum().backward()
        for norm, old in zip(norms, before, strict=True):
            assert norm.running_mean is not None
            assert torch.equal(norm.running_mean, old) == frozen
            assert (norm.weight.grad is None) == frozen
            assert (norm.bias.grad is None) == frozen


def test_an_empty_range_of_scales_is_refused() -> None:
    with pytest.raises(ValueError, match=r"starts at 1\.5 above its end 0\.5; swap them"):
        config(scale_jitter=(1.5, 0.5))
