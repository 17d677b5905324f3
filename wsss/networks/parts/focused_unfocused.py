"""The focused-unfocused module of III-C, built from the parts that are switched on (Figure 4).

Focused: channel attention (squeeze-and-excitation [24]) and spatial attention. Unfocused:
multi-scale atrous convolution and context association (Eq. 3).
Legend: B batch, C channels in, C' channels of the atrous stack, h w map size, N = h * w pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation

from wsss.config import NetworkConfig
from wsss.networks.parts.association import associate
from wsss.networks.parts.conv_norm import conv_norm_relu


class SpatialAttention(nn.Module):
    """Scales each pixel by a weight in (0, 1), from its channels' mean and maximum.

    The paper cites a survey of spatial attention [25] and fixes no form; this is CBAM's, a 7x7
    convolution over the two maps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        return x * torch.sigmoid(self.conv(_MeanAndMaximum.apply(x)))


class _MeanAndMaximum(torch.autograd.Function):
    """[B, C, h, w] -> [B, 2, h, w], over the channels; equal maxima share the gradient.

    Torch's own mean and amax do the same in six passes over the features instead of three.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        largest = x.amax(1, keepdim=True)
        ctx.save_for_backward(x, largest)
        return torch.cat([x.mean(1, keepdim=True), largest], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, largest = ctx.saved_tensors
        of_mean, of_largest = gradients[0].split(1, 1)
        of_mean = of_mean / x.shape[1]
        is_largest = x == largest
        num_largest = is_largest.view(torch.uint8).sum(1, keepdim=True, dtype=torch.int32)
        return torch.where(is_largest, of_mean + of_largest / num_largest, of_mean)


class MultiScaleAtrous(nn.Module):
    """Four convolutions with growing dilation, each with batch norm and ReLU.

    [B, C, h, w] -> [B, out_channels, h, w]. The paper's dilation factors are 0, 1, 2, 3; since 0
    is no dilation, `network.atrous` names the reading. With `atrous_start: identity` the stack is
    a residual with a scale per channel that starts at 0, and keeps the C channels.
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
        """Return the mixed map, of the shape of what is mixed (plus it, with a residual).

        x: features [B, C', h, w]; module_input: [B, C, h, w].
        """
        mixing = module_input if self.of_input else x
        features = x.flatten(2).transpose(1, 2)  # [B, N, C']
        values = mixing.flatten(2).transpose(1, 2) if self.of_input else None  # [B, N, C]
        mixed = associate(features, values, temperature=self.temperature).to(x.dtype)
        mixed = mixed.transpose(1, 2).reshape(mixing.shape)
        return mixing + mixed if self.residual else mixed


class FocusedUnfocused(nn.Module):
    """Channel and spatial attention (F), then atrous stack and context association (U).

    `network.module_placement`: series: U(F(x)); parallel: F(x) and U(x), concatenated; remaining:
    F(x) and U(x - F(x)), where x - F(x) = (1 - A) x is what the attention A leaves. A part that is
    switched off is not built; if F or U has no part, only the other is applied.
    """

    def __init__(self, channels: int, network: NetworkConfig) -> None:
        super().__init__()
        focused = network.channel_attention or network.spatial_attention
        unfocused = network.multi_scale_atrous or network.context_association
        self.placement = network.module_placement if focused and unfocused else "series"
        self.channel_attention = self.spatial_attention = self.multi_scale_atrous = None
        self.context_association = None
        self.out_channels = channels
        """Channels of the module's result."""
        if network.channel_attention:
            squeezed = max(1, channels // network.se_ratio)
            self.channel_attention = SqueezeExcitation(channels, squeezed)
        if network.spatial_attention:
            self.spatial_attention = SpatialAttention()
        if network.multi_scale_atrous:
            self.multi_scale_atrous = MultiScaleAtrous(channels, network)
            self.out_channels = self.multi_scale_atrous.out_channels
        if network.context_association:
            self.context_association = ContextAssociation(network)
            if self.context_association.of_input:
                self.out_channels = channels
        if self.placement != "series":
            self.out_channels += channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, out_channels, h, w]."""
        focused = x
        for part in (self.channel_attention, self.spatial_attention):
            if part is not None:
                focused = part(focused)
        start = {"series": focused, "parallel": x}.get(self.placement)
        unfocused = x - focused if start is None else start
        if self.multi_scale_atrous is not None:
            unfocused = self.multi_scale_atrous(unfocused)
        if self.context_association is not None:
            unfocused = self.context_association(unfocused, x)
        return unfocused if self.placement == "series" else torch.cat([focused, unfocused], 1)
