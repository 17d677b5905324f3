"""Ratios against stated peers, each pair timed alternately in one run on the same inputs.

Usage: python benchmarks/run.py. Prints the median ratio (peer's time / ours) and its spread.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from wsss.config import NetworkConfig
from wsss.evaluation.confusion import collect, count_image, threshold_grid
from wsss.networks.backbone import build_backbone
from wsss.networks.conv_norm import ConvNorm

ROUNDS = 5


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object]) -> None:
    """Time both in turn and print how many times as long the peer takes."""
    ours(), peer()
    ratios = []
    for _ in range(ROUNDS):
        times = []
        for run in (ours, peer):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        ratios.append(times[1] / times[0])
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{name:70} {middle:6.2f} x  ({low:.2f} to {high:.2f})", flush=True)


class UnfoldedConvNorm(ConvNorm):
    """The plain way: batch norm applied to the activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self.norm(self.conv(x))
        return normalised


def folded_batch_norm() -> None:
    """MobileNetV2 at stride 16, frozen statistics, forward and backward of 4 images of 224 px."""
    network = NetworkConfig(backbone="mobilenet_v2", weights="none")
    ours, peer = (build_backbone(network).eval() for _ in range(2))
    for module in peer.modules():
        if isinstance(module, ConvNorm):
            module.__class__ = UnfoldedConvNorm
    x = torch.randn(4, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def step(model: nn.Module) -> None:
        model(x)[-1].mean().backward()

    name = "training step, folded batch norm against batch norm on activations"
    compare(name, lambda: step(ours), lambda: step(peer))


def threshold_curve() -> None:
    """60 thresholds of one 500 x 375 image with two classes: one pass against one pass each."""
    rng = np.random.default_rng(0)
    cams = rng.random((2, 375, 500), dtype=np.float32)
    mask = rng.integers(0, 21, (375, 500)).astype(np.uint8)
    thresholds = threshold_grid(0.15)[:60]
    classes = np.array([3, 8])

    def ours() -> np.ndarray:
        counted = count_image(cams, (2, 7), mask, thresholds, 21)
        return collect([("image", *counted)], thresholds, 21).confusions()

    def peer() -> np.ndarray:
        strongest, label = cams.max(0), classes[cams.argmax(0)]
        matrices = []
        for threshold in thresholds:
            predicted = np.where(strongest > threshold, label, 0)
            codes = mask.astype(np.int64) * 21 + predicted
            matrices.append(np.bincount(codes.ravel(), minlength=441).reshape(21, 21))
        return np.stack(matrices)

    assert (ours() == peer()).all()
    compare("threshold curve, 60 thresholds in one pass against a pass each", ours, peer)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; peer's time / ours")
    folded_batch_norm()
    threshold_curve()
