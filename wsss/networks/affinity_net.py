"""The affinity network: features whose distance says whether two near pixels are of one object.

After PSA (Ahn and Kwak, CVPR 2018), with the per-stage heads of IRN (Ahn et al., CVPR 2019).
Legend: B batch, C channels, H W image size, h w feature size, M pairs of near pixels.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wsss.config import NetworkConfig
from wsss.networks.backbone import OnBackbone, build_backbone, resized_map
from wsss.segmentation_config import RandomWalkConfig

HEAD_CHANNELS, HEAD_GROUPS = 32, 4
"""Of the 1x1 convolution and the group norm on each stage (IRN)."""

FEATURE_CHANNELS = 64
"""Distances are means over channels, so their scale does not depend on this."""

INITIAL_GAIN = 2.0
"""Of the last layer (PSA: 4): distances start near 1, where neither loss term is flat."""

NUM_STAGES = 5


class AffinityNet(OnBackbone):
    """Backbone -> 1x1 convolutions on the maps of stages 2 to 5 -> one feature map.

    The maps are resized to `config.stride` and concatenated. Batch norms keep their statistics;
    with `config.frozen_backbone` the whole backbone keeps its initial weights.
    """

    frozen_norm = True

    def __init__(
        self, network: NetworkConfig, config: RandomWalkConfig, *, weights_file: Path | None = None
    ) -> None:
        super().__init__()
        self.stride = config.stride
        self.backbone = build_backbone(network, weights_file)
        if config.frozen_backbone:
            self.backbone.freeze(NUM_STAGES)
        self.heads = nn.ModuleList(_head(channels) for channels in self.backbone.channels)
        self.fuse = nn.Conv2d(HEAD_CHANNELS * len(self.heads), FEATURE_CHANNELS, 1, bias=False)
        nn.init.xavier_uniform_(self.fuse.weight, gain=INITIAL_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> features [B, C, h, w] in fp32, h = ceil(H / stride)."""
        height, width = x.shape[-2:]
        size = (-(-height // self.stride), -(-width // self.stride))
        maps = [head(stage) for head, stage in zip(self.heads, self.backbone(x), strict=True)]
        return self.fuse(torch.cat([resized_map(part, size) for part in maps], 1)).float()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters of the backbone, and of all new layers (head)."""
        return {
            "backbone": [p for p in self.backbone.parameters() if p.requires_grad],
            "head": [*self.heads.parameters(), *self.fuse.parameters()],
        }


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False),
        nn.GroupNorm(HEAD_GROUPS, HEAD_CHANNELS),
        nn.ReLU(inplace=True),
    )


class Pairs(NamedTuple):
    """All unordered pairs of different pixels nearer than a radius, as flat indices y * w + x."""

    first: Tensor
    """[M] int64."""
    second: Tensor
    """[M] int64, always the larger index."""


def neighbour_offsets(radius: int, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Return the steps (dy, dx) to later pixels with dy^2 + dx^2 < radius^2 (PSA) in a map.

    Radius 1 holds none; a step longer than the map is left out.
    """
    reach_y, reach_x = min(radius, height) - 1, min(radius, width) - 1
    return tuple(
        (dy, dx)
        for dy in range(reach_y + 1)
        for dx in range(-reach_x, reach_x + 1)
        if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
    )


def neighbour_pairs(
    height: int, width: int, radius: int, *, device: torch.device | None = None
) -> Pairs:
    """Return the pairs of a map in the order of `pair_distances`: step by step, row by row.

    device: of the maps that they will index; a GPU would copy indices from the CPU each time.
    """
    index = torch.arange(height * width, device=device).reshape(height, width)
    first, second = [index.new_empty(0)], [index.new_empty(0)]
    for step in neighbour_offsets(radius, height, width):
        for parts, end in zip((first, second), _ends(index, step), strict=True):
            parts.append(end.flatten())
    return Pairs(torch.cat(first), torch.cat(second))


def pair_distances(features: Tensor, radius: int) -> Tensor:
    """Return the mean absolute difference over channels of each pair: [B, C, h, w] -> [B, M].

    The affinity of a pair is exp(-distance), in (0, 1] (PSA, Eq. 1). Memory grows with the result:
    no difference [B, C, M] is kept, forward or backward.
    """
    distances: Tensor = _PairDistances.apply(features, radius)
    return distances


class _PairDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(features)
        ctx.radius = radius
        parts = []
        for step in neighbour_offsets(radius, *features.shape[-2:]):
            first, second = _ends(features, step)
            parts.append((first - second).abs_().mean(1).flatten(1))
        return torch.cat(parts, 1) if parts else features.new_empty(len(features), 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        (gradient,) = gradients
        total, start = torch.zeros_like(features), 0
        for step in neighbour_offsets(ctx.radius, *features.shape[-2:]):
            first, second = _ends(features, step)
            _, _, rows, columns = first.shape
            part = gradient[:, start : start + rows * columns].unflatten(1, (1, rows, columns))
            change = (first - second).sign_().mul_(part / features.shape[1])
            to_first, to_second = _ends(total, step)
            to_first += change
            to_second -= change
            start += rows * columns
        return total, None


def _ends(grid: Tensor, step: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return views of a map [..., h, w] at the first and at the second pixel of a step's pairs."""
    dy, dx = step
    height, width = grid.shape[-2:]
    left, right = max(0, -dx), max(0, dx)
    return grid[..., : height - dy, left : width - right], grid[..., dy:, right : width - left]
