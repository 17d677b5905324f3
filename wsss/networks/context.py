"""The unfocused part: multi-scale atrous convolution and context association (III-C, Eq. 3).

Legend: B batch, C channels in, C' channels of the stack, h w map size, N = h * w pixels.
"""

import torch
from torch import Tensor, nn

from wsss.config import NetworkConfig
from wsss.networks.association import associate
from wsss.networks.conv_norm import conv_norm_relu


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
        return stacked if self.scale is None else torch.addcmul(x, self.scale, stacked)


class ContextAssociation(nn.Module):
    """Mixes each pixel's features with those of similar pixels (Eq. 3).

    M_c = normalise(activate(cosine(V_m, V_n))) is [N, N] per image; the result is M_c V, or with
    `association_values: input` M_c times the module's input. It has no parameters, and its memory
    grows with N rather than N^2 (see `associate`).
    """

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        self.temperature = network.affinity_temperature if network.affinity == "softmax" else None
        self.residual = network.affinity_residual
        self.of_input = network.association_values == "input"

    def forward(self, x: Tensor, module_input: Tensor) -> Tensor:
        """Features [B, C', h, w] and the module's input [B, C, h, w] -> a map like what is mixed.

        A residual adds what is mixed, too.
        """
        mixing = module_input if self.of_input else x
        features = x.flatten(2).transpose(1, 2)  # [B, N, C']
        values = mixing.flatten(2).transpose(1, 2) if self.of_input else None  # [B, N, C]
        mixed = associate(features, values, temperature=self.temperature).to(x.dtype)
        mixed = mixed.transpose(1, 2).reshape(mixing.shape)
        return mixing + mixed if self.residual else mixed
