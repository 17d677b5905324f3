"""Context association, forward and backward, against the full N x N matrix (Eq. 3 as written).

Usage: python -m benchmarks.training.context. Peak memory is how much a new process grows during one
forward and backward. Batch 2, 256 channels, fp32, 1 thread. Linux.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ratios import high_water_mib, in_new_process, overhead, show
from wsss.networks.parts.association import associate

BATCH, CHANNELS = 2, 256


def full_matrix(features: Tensor, *, temperature: float | None) -> Tensor:
    """Return the association by the cosines of all pairs."""
    unit = F.normalize(features, dim=2)
    cosine = unit @ unit.transpose(1, 2)
    if temperature is not None:
        return torch.softmax(cosine / temperature, 2) @ features
    weights = cosine.relu()
    return (weights / weights.sum(2, keepdim=True).clamp_min(1e-6)) @ features


WAYS = {"ours": associate, "full matrix": full_matrix}


def step(way: str, features: Tensor, temperature: float | None) -> tuple[Tensor, Tensor]:
    """Return the associated features and their gradient."""
    x = features.detach().requires_grad_()
    mixed = WAYS[way](x, temperature=temperature)
    (mixed * mixed).mean().backward()
    assert x.grad is not None
    return mixed.detach(), x.grad


def grown_mib(way: str, size: int) -> float:
    """Return by how much a step raises the peak memory of a process, in MiB."""
    torch.set_num_threads(1)
    step(way, torch.randn(BATCH, 16, CHANNELS), None)  # loads libraries
    features = torch.randn(BATCH, size**2, CHANNELS)
    before = high_water_mib()
    step(way, features, None)
    return high_water_mib() - before


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for size, rounds in ((32, 5), (64, 3)):
        for kind, temperature in (("ReLU", None), ("softmax", 0.1)):
            features = torch.randn(BATCH, size**2, CHANNELS)
            ours, peer = (step(way, features, temperature) for way in WAYS)
            torch.testing.assert_close(ours, peer)
            name = f"context association {size}x{size}, {kind}: ours / full matrix"
            ways = (partial(step, way, features, temperature) for way in WAYS)
            overhead(name, *ways, goal=1.0, rounds=rounds)
    mib, others = (in_new_process(grown_mib, way, 64) for way in WAYS)
    show(f"... peak memory 64x64: {mib:.0f} MiB / {others:.0f} MiB", [mib / others], "at most 0.25")


if __name__ == "__main__":
    main()
