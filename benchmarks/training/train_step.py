"""A training step of the CAM network against the bare backbone.

Usage: python -m benchmarks.training.train_step [--threads 1]. Random images and weights, frozen
batch norm; freed memory is kept on both sides, as in our trainings.

"bare backbone": forward and backward of the same backbone (batch norm folded, as ours) on the same
3 x B images (B for B0), nothing else: no optimiser, no loss, no views. "plain batch norm": the same
with batch norm applied to the activations, as torchvision runs it.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ratios import overhead
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.gpu_check.trainings import NUM_CLASSES, cam_case
from wsss.networks.cam_net import CamNet
from wsss.networks.parts.conv_norm import ConvNorm
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.training.process import pick_device

CPU = torch.device("cpu")
SIZES = {"tiny": (8, 96), "short": (16, 160), "paper": (2, 256)}
"""Batch and crop by preset; those of `short` and `paper` are smaller here than in the preset."""


def config_of(preset: str, overrides: dict[str, object]) -> RunConfig:
    """Return a preset with random weights, every layer trained, frozen batch norm."""
    batch, crop = SIZES[preset]
    settings = {
        "network.weights": "none",
        "network.batch_norm": "frozen",
        "network.frozen_stages": 0,
        "train.batch_size": batch,
        "train.crop_size": crop,
        "train.lr": 1e-6,
        "train.min_long_side": crop,
        "train.max_long_side": crop,
    }
    return apply_overrides(PRESETS[preset], settings | overrides)


def training(config: RunConfig) -> tuple[CamNet, Callable[[], object]]:
    """Return a network and a function that takes one whole step: views, losses, optimiser."""
    case = cam_case(config, {})
    model = case.build()
    step = case.step(model, CPU, config.train.precision)
    return model, lambda: step(case.batch)


def bare(config: RunConfig, *, folded: bool = True) -> Callable[[], object]:
    """Return a function that runs the backbone alone, forward and backward."""
    model = CamNet(config.network, NUM_CLASSES).to(memory_format=torch.channels_last)
    backbone = model.train().backbone  # whose frozen norms stay frozen
    if not folded:
        with_plain_norms(backbone)
    images = (1 + len(config.views.names)) * config.train.batch_size
    crop = config.train.crop_size
    x = torch.randn(images, 3, crop, crop).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        backbone.zero_grad(set_to_none=True)
        backbone(x)[-1].mean().backward()

    return run


def with_plain_norms(model: nn.Module) -> None:
    """Let a network's batch norms work on the activations, as torchvision's do."""
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.__class__ = PlainConvNorm


class PlainConvNorm(ConvNorm):
    """Batch norm applied to the activations."""

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


def against_the_backbone() -> None:
    for preset, (batch, crop) in SIZES.items():
        for cell, overrides, goal in (("F3", F3, 1.25), ("B0", {}, 1.08)):
            config, rounds = config_of(preset, dict(overrides)), 2 if preset == "paper" else 4
            (_, ours), peer = training(config), bare(config)
            name = f"{preset} {cell}, {config.network.backbone}, {batch} of {crop} px"
            counted = operations(ours) / operations(peer)
            overhead(
                f"{name}: / bare (by operations {counted:.2f})",
                ours,
                peer,
                goal=goal,
                rounds=rounds,
            )
            if (preset, cell) == ("short", "F3"):
                plain = bare(config, folded=False)
                overhead(f"{name}: / bare, plain batch norm", ours, plain, rounds=2)


def operations(run: Callable[[], object]) -> int:
    """Return the floating-point operations of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    pick_device(parser.parse_args().threads)
    against_the_backbone()


if __name__ == "__main__":
    main()
