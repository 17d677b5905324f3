"""The focused part: channel and spatial attention (III-C). Legend: B batch, C channels, h w map."""

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation


def channel_attention(channels: int, ratio: int) -> SqueezeExcitation:
    """Return squeeze-and-excitation [24]: [B, C, h, w] -> [B, C, h, w], scaled per channel."""
    return SqueezeExcitation(channels, max(1, channels // ratio))


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
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # [B, 2, h, w]
        return x * torch.sigmoid(self.conv(pooled))
