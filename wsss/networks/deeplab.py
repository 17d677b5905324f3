"""DeepLabv2 with large field of view: the second half's network (IV-B).

Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution,
and Fully Connected CRFs", TPAMI 2018, as public weakly supervised code trains it: the classifier of
each rate is one 3x3 convolution on the backbone's last map, and the scores are added. The three
input scales that the authors fuse in training are left out.

Legend: B batch, L labels (background and K classes), C channels, H W image size, h w feature size.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from wsss.config import NetworkConfig
from wsss.networks.backbone import OnBackbone, build_backbone
from wsss.networks.parts.conv_norm import batch_norms
from wsss.networks.random_weights import drawn_from
from wsss.segmentation_config import DeepLabConfig

HEAD_DEVIATION = 0.01
"""Standard deviation of new classifiers' initial weights (DeepLabv2)."""


class DeepLab(OnBackbone):
    """Dilated backbone -> sum of 3x3 atrous classifiers, one a rate.

    With batch_norm `frozen`, statistics, scale and shift of every batch norm stay as they are.
    Raises WeightsError for initial weights that do not fit.
    """

    def __init__(
        self, config: DeepLabConfig, num_classes: int, *, weights_file: Path | None = None
    ) -> None:
        super().__init__()
        self.num_labels = num_classes + 1
        self.frozen_norm = config.batch_norm == "frozen"
        network = NetworkConfig(
            backbone=config.backbone,
            weights=config.weights,
            frozen_stages=config.frozen_stages,
            last_stage_dilation=2,
        )
        self.backbone = build_backbone(
            network,
            weights_file,
            output_stride=config.output_stride,
            first_block_dilation=config.first_block_dilation,
        )
        if self.frozen_norm:
            for norm in batch_norms(self.backbone):
                norm.requires_grad_(requires_grad=False)
        channels = self.backbone.channels[-1]
        self.classifiers = nn.ModuleList(
            _atrous_classifier(channels, self.num_labels, rate) for rate in config.rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> logits [B, L, h, w] in fp32."""
        features = self.backbone(x)[-1]  # [B, C, h, w]
        logits: Tensor = sum(classifier(features) for classifier in self.classifiers)
        return logits.float()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters of the backbone, and the classifiers', one a rate."""
        head = list(self.classifiers.named_parameters())
        return {
            "backbone": [p for p in self.backbone.parameters() if p.requires_grad],
            "head_weights": [p for name, p in head if name.endswith(".weight")],
            "head_biases": [p for name, p in head if name.endswith(".bias")],
        }


def _atrous_classifier(channels: int, num_labels: int, rate: int) -> nn.Conv2d:
    classifier = nn.Conv2d(channels, num_labels, 3, padding=rate, dilation=rate)
    nn.init.normal_(classifier.weight, std=HEAD_DEVIATION)
    assert classifier.bias is not None
    nn.init.zeros_(classifier.bias)
    return classifier


def build_deeplab(
    config: DeepLabConfig, num_classes: int, *, weights_file: Path | None = None
) -> DeepLab:
    """Build the network with new layers drawn from `rng_seed`, equal on every rank."""
    with drawn_from(config.rng_seed):
        model = DeepLab(config, num_classes, weights_file=weights_file)
    return model.to(memory_format=torch.channels_last)
