"""SEAM's pixel correlation module, and a loss to go with it; neither is the paper's.

Wang et al., Self-supervised Equivariant Attention Mechanism, CVPR 2020, Section 3.3. The module
is theirs but for its input: they also embed an earlier stage's features and the image itself, and
refine a normalised CAM with a background channel; this one takes what the classifier sees.

Legend: B batch, K foreground classes, C channels, h w map size, N = h * w pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wsss.config import NetworkConfig
from wsss.method.cam import normalise_cam
from wsss.method.losses import compared_classes, l1_distance
from wsss.networks.parts.association import associate


class Refinement(NamedTuple):
    """CAMs before and after the refinement, each raw [B, K, h, w]."""

    plain: Tensor
    refined: Tensor


class PixelCorrelation(nn.Module):
    """y_i = sum_j ReLU(cos(theta(x_i), theta(x_j))) cam_j, over the sum of these weights.

    theta is a 1x1 convolution without bias. As in SEAM it learns from detached features, so the
    affinity does not train the backbone. With the loss alone there is no theta, as nothing would
    train it: the features are compared as they are.
    """

    def __init__(self, channels: int, network: NetworkConfig) -> None:
        super().__init__()
        self.theta = None
        if network.pixel_correlation in ("module", "both"):
            self.theta = nn.Conv2d(channels, network.correlation_channels, 1, bias=False)
        self.in_loss = network.pixel_correlation in ("loss", "both")

    def forward(self, features: Tensor, cams: Tensor) -> tuple[Tensor, Refinement | None]:
        """Return the network's CAMs, and in training what the loss compares.

        features: [B, C, h, w]; cams, given and returned: raw [B, K, h, w] in fp32.
        """
        if self.theta is None:
            if not self.training:
                return cams, None
            with torch.no_grad():
                return cams, Refinement(cams, refine(features, cams))
        refined = refine(self.theta(features.detach()), cams)
        compared = Refinement(cams, refined) if self.in_loss and self.training else None
        return refined, compared


def refine(embedded: Tensor, cams: Tensor) -> Tensor:
    """Mean of CAMs over similar pixels: [B, C, h, w] and [B, K, h, w] -> [B, K, h, w] in fp32."""
    pixels, values = (each.flatten(2).transpose(1, 2) for each in (embedded, cams))  # [B, N, -]
    return associate(pixels, values, temperature=None).transpose(1, 2).reshape(cams.shape)


def correlation_loss(refinement: Refinement, present: Tensor) -> Tensor:
    """L_pc: L1 distance of the normalised CAMs before and after the refinement, a scalar.

    present: [B, K] of 0 and 1. Mean over an image's present classes and pixels, then over images. A
    class whose CAM has no positive value before or after is skipped, as in L_s. The refined CAM is
    the target and gets no gradient. SEAM's own loss_ecr compares with the other scale's CAM.
    """
    compared = compared_classes(torch.stack(refinement), present, "skip")
    target = normalise_cam(refinement.refined.detach(), compared)
    plain = normalise_cam(refinement.plain, compared)
    return l1_distance(plain, target, compared, reduction="present")
