"""The focused part: channel and spatial attention (III-C). Legend: B batch, C channels, h w map."""

from typing import Any

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
