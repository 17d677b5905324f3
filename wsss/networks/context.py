"""The unfocused part: multi-scale atrous convolution and context association (III-C, Eq. 3).

Legend: B batch, C channels in, C' channels of the stack, h w map size, N = h * w pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsss.config import NetworkConfig
from wsss.networks.conv_norm import conv_norm_relu

MAX_AFFINITY_ENTRIES = 2**20
"""Affinity entries computed at once per image: one chunk up to a 32 x 32 map, 4 MiB in fp32."""


class MultiScaleAtrous(nn.Module):
    """Four convolutions with growing dilation, each with batch norm and ReLU.

    [B, C, h, w] -> [B, out_channels, h, w]. The paper's dilation factors are 0, 1, 2, 3; since 0
    is no dilation, `network.atrous` names the reading. With `atrous_start: identity` the stack is
    a residual behind a scale per channel that starts at 0, and keeps the C channels.
    """

    def __init__(self, in_channels: int, network: NetworkConfig) -> None:
        super().__init__()
        width = network.atrous_channels
        residual = network.atrous_start == "identity"
        self.out_channels = in_channels if residual else width
        self.parallel = network.atrous == "parallel"
        layers = []
        for index in range(4):
            last = index == 3
            start = in_channels if index == 0 or self.parallel else width
            stop = self.out_channels if last or self.parallel else width
            one = network.atrous != "one_to_four" and index == 0
            dilation = index + 1 if network.atrous == "one_to_four" else max(1, index)
            layers.append(conv_norm_relu(start, stop, 1 if one else 3, dilation=dilation))
        self.layers = nn.ModuleList(layers)
        self.scale = nn.Parameter(torch.zeros(in_channels, 1, 1)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, out_channels, h, w]."""
        if self.parallel:
            stacked = torch.stack([layer(x) for layer in self.layers]).sum(0)
        else:
            stacked = x
            for layer in self.layers:
                stacked = layer(stacked)
        return stacked if self.scale is None else x + self.scale * stacked


class ContextAssociation(nn.Module):
    """Mixes each pixel's features with those of similar pixels (Eq. 3).

    M_c = normalise(activate(cosine(V_m, V_n))) is [N, N] per image; the result is M_c V. It has no
    parameters. Rows are computed in chunks and, beyond one chunk, again in the backward pass, so
    that memory grows with N rather than N^2.
    """

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        self.temperature = network.affinity_temperature if network.affinity == "softmax" else None
        self.residual = network.affinity_residual

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        features = x.flatten(2).transpose(1, 2)  # [B, N, C]
        unit = F.normalize(features, dim=2)
        num_pixels = features.shape[1]
        rows = max(1, MAX_AFFINITY_ENTRIES // num_pixels)
        if rows >= num_pixels:
            mixed = associate(unit, unit, features, temperature=self.temperature)
        else:
            chunks = [
                checkpoint(
                    associate, chunk, unit, features, temperature=self.temperature,
                    use_reentrant=False,
                )
                for chunk in unit.split(rows, dim=1)
            ]  # fmt: skip
            mixed = torch.cat(chunks, 1)
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        return x + mixed if self.residual else mixed


def associate(
    queries: Tensor, keys: Tensor, values: Tensor, *, temperature: float | None
) -> Tensor:
    """Weighted mean of `values` by the cosine of unit vectors.

    queries [B, R, C] and keys [B, N, C] of length 1, values [B, N, C]. Returns [B, R, C]. With no
    temperature the weights are ReLU(cosine) over their row sum, else softmax(cosine / temperature).
    """
    cosine = queries @ keys.transpose(1, 2)  # [B, R, N]
    if temperature is not None:
        return torch.softmax(cosine / temperature, 2) @ values
    weights = cosine.relu()
    # A pixel's cosine with itself is 1, so a row sums to at least 1, unless its features are all 0.
    return (weights @ values) / weights.sum(2, keepdim=True).clamp_min(1e-6)
