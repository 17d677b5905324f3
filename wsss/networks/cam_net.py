"""The classification network whose last map is the CAM (III-A, Figure 1).

Legend: B batch, K foreground classes, C channels, H W image size, h w = H/16, W/16 (H/8 for P3).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from wsss.config import NetworkConfig
from wsss.networks.backbone import Backbone, OnBackbone, build_backbone, resized_map
from wsss.networks.parts.conv_norm import batch_norms
from wsss.networks.parts.focused_unfocused import FocusedUnfocused
from wsss.networks.parts.pixel_correlation import PixelCorrelation, Refinement


class CamOutput(NamedTuple):
    """The network's output for a batch."""

    logits: Tensor
    """[B, K], the mean of each class's map: image-level scores before the sigmoid."""
    cams: Tensor
    """[B, K, h, w], class weights x features (Eq. 1), before any ReLU; refined by SEAM's module."""
    refinement: Refinement | None
    """What L_pc compares; None unless training with that loss."""


class CamNet(OnBackbone):
    """Backbone -> one map -> focused and unfocused parts -> 1x1 classifier -> global mean."""

    def __init__(
        self, network: NetworkConfig, num_classes: int, *, weights_file: Path | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.frozen_norm = network.batch_norm == "frozen"
        self.backbone = build_backbone(network, weights_file)
        self.neck = None if network.feature_map == "plain" else FusedPyramid(self.backbone, network)
        channels = self.backbone.channels[-1] if self.neck is None else network.fpn_channels
        self.parts = FocusedUnfocused(channels, network)
        self.classifier = nn.Conv2d(self.parts.out_channels, num_classes, 1, bias=False)
        # Last, so that the other layers draw the same initial weights with and without it.
        self.correlation = (
            None
            if network.pixel_correlation == "off"
            else PixelCorrelation(self.parts.out_channels, network)
        )
        known = set(batch_norms(self.backbone)) if network.weights != "none" else set()
        self.new_norms = [norm for norm in batch_norms(self) if norm not in known]

    def forward(self, x: Tensor) -> CamOutput:
        """Normalised images [B, 3, H, W] -> CamOutput in fp32."""
        maps = self.backbone(x)
        features = maps[-1] if self.neck is None else self.neck(maps)
        features = self.parts(features)
        cams, refinement = self.classifier(features).float(), None
        if self.correlation is not None:
            cams, refinement = self.correlation(features, cams)
        return CamOutput(cams.mean((2, 3)), cams, refinement)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters in the groups of `build_sgd`."""
        return {
            "backbone": [p for p in self.backbone.parameters() if p.requires_grad],
            "pyramid": list(self.neck.parameters()) if self.neck else [],
            "parts": list(self.parts.parameters()),
            "head": [
                *self.classifier.parameters(),
                *(self.correlation.parameters() if self.correlation else ()),  # SEAM's rate
            ],
        }

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Set the statistics of new batch norms to those of normalised images [B, 3, H, W].

        Frozen statistics need a value: pretrained layers have theirs; new layers get those of the
        images shown here, once, before training.
        """
        for norm in self.new_norms:
            norm.train()
            norm.momentum = None  # the statistics of this forward alone
            norm.reset_running_stats()
        self(images)
        for norm in self.new_norms:
            norm.momentum = 0.1
        self.train(self.training)


class FusedPyramid(nn.Module):
    """Torchvision's feature pyramid, its levels averaged into one map.

    The paper says ResNet50-FPN and shows one map. `fpn` runs over stages 4 and 5, both at stride
    16; `fpn_p3` over stages 3 to 5, resized to stride 8.
    """

    def __init__(self, backbone: Backbone, network: NetworkConfig) -> None:
        super().__init__()
        self.num_levels = 3 if network.feature_map == "fpn_p3" else 2
        levels = list(backbone.channels[-self.num_levels :])
        self.fpn = FeaturePyramidNetwork(levels, network.fpn_channels)

    def forward(self, maps: Iterable[Tensor]) -> Tensor:
        """Maps of stages 2 to 5 -> [B, fpn_channels, h, w]."""
        levels = list(maps)[-self.num_levels :]
        pyramid = self.fpn({str(index): level for index, level in enumerate(levels)})
        size = levels[0].shape[-2:]
        return torch.stack([resized_map(level, size) for level in pyramid.values()]).mean(0)
