"""The focused-unfocused module of III-C, built of the parts that are switched on (Figure 4).

Legend: B batch, C channels in, C' channels of the atrous stack, h w map size.
"""

import torch
from torch import Tensor, nn

from wsss.config import NetworkConfig
from wsss.networks.attention import SpatialAttention, channel_attention
from wsss.networks.context import ContextAssociation, MultiScaleAtrous


class FocusedUnfocused(nn.Module):
    """Channel and spatial attention (F), then atrous stack and context association (U).

    `network.module_placement`: series: U(F(x)); parallel: F(x) and U(x), side by side; remaining:
    F(x) and U(x - F(x)), of which x - F(x) = (1 - A) x is what the attention A leaves. A part that
    is switched off is not built; a side without any part is the identity in series, and absent
    beside the other.
    """

    def __init__(self, channels: int, network: NetworkConfig) -> None:
        super().__init__()
        focused = network.channel_attention or network.spatial_attention
        unfocused = network.multi_scale_atrous or network.context_association
        self.placement = network.module_placement if focused and unfocused else "series"
        self.channel_attention = self.spatial_attention = self.multi_scale_atrous = None
        self.context_association = None
        self.out_channels = channels
        """Channels behind the module."""
        if network.channel_attention:
            self.channel_attention = channel_attention(channels, network.se_ratio)
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
