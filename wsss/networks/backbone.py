"""Backbones at output stride 16 or 8, in five stages: torchvision's, and a narrow one.

resnet10_narrow, for drawn data, has one basic block a stage. Legend: B batch, C channels, H W image
size.
"""

import itertools
import socket
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.hub import load_state_dict_from_url
from torchvision import models
from torchvision.models.resnet import BasicBlock

from wsss.config import NetworkConfig
from wsss.networks.parts.conv_norm import batch_norms, conv_norm_relu, fuse_conv_norm
from wsss.networks.weights_file import load_state_file
from wsss.weights import IMAGENET_FILES, WeightsError, file_digest, require_weights

CHANNELS = {
    "resnet50": (256, 512, 1024, 2048),
    "resnet18": (64, 128, 256, 512),
    "mobilenet_v2": (24, 32, 96, 1280),
    "resnet10_narrow": (24, 48, 96, 128),
}
"""Of stages 2 to 5."""
PUBLISHED = "https://download.pytorch.org/models/"
"""Where torchvision's weights are."""
ANSWER_LIMIT_S = 15.0
"""Longest wait for the server of ImageNet weights, and for the next bytes of a file."""


def resized_map(features: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps [B, C, h, w] at another size by bilinear interpolation, or as they are."""
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def nearest_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the label under the centre of each cell of a coarser grid: [B, H, W] -> [B, h, w].

    Cell i of h shows row floor((i + 1/2) H / h), as Pillow's nearest neighbour does but where that
    centre lies between two pixels.
    """
    return F.interpolate(labels[:, None], size=size, mode="nearest-exact")[:, 0]


class Backbone(nn.Module):
    """Five stages with strides 4 (2 in MobileNetV2 and the narrow net), 4, 8, 16 and 16.

    At output stride 8 the last two have stride 8.
    """

    def __init__(self, stages: list[nn.Module], channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.stages, self.channels = nn.ModuleList(stages), channels
        self.num_frozen = 0

    def freeze(self, num_stages: int) -> None:
        """Keep the first `num_stages` stages at their initial weights, without a backward pass."""
        self.num_frozen = num_stages
        for stage in self.frozen_stages():
            stage.requires_grad_(requires_grad=False)

    def frozen_stages(self) -> list[nn.Module]:
        """Return the stages that are not trained."""
        return list(self.stages[: self.num_frozen])

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, 3, H, W] -> the maps of stages 2 to 5, strides 4, 8, then the output stride."""
        maps = []
        for index, stage in enumerate(self.stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.num_frozen):
                x = stage(x)
            maps.append(x)
        return maps[1:]


class OnBackbone(nn.Module):
    """A network on a backbone, some of whose batch norms stay in evaluation mode."""

    backbone: Backbone
    frozen_norm: bool
    """Whether all batch norms are frozen, not only those of the frozen stages."""

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """Switch the training mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for module in [self] if self.frozen_norm else self.backbone.frozen_stages():
            for norm in batch_norms(module):
                norm.eval()
        return self


def build_backbone(
    network: NetworkConfig,
    weights_file: Path | None = None,
    *,
    output_stride: Literal[8, 16] = 16,
    first_block_dilation: Literal["full", "half"] = "half",
) -> Backbone:
    """Build the configured backbone with its initial weights, convolutions and norms fused.

    The last stage has `network.last_stage_dilation`; at output stride 8 the last two have 2 and 4.
    first_block_dilation: as of `_dilate`. `weights_file` must be the file whose SHA-256
    `network.weights` names. Raises WeightsError if it is missing, altered or made for another
    backbone.
    """
    narrow = network.backbone == "resnet10_narrow"
    model = _resnet10_narrow() if narrow else models.get_model(network.backbone, weights=None)
    _load_initial(model, network, weights_file)
    stages = _stages_of(model)
    for stage in stages:
        fuse_conv_norm(stage)
    dilations = {3: 2, 4: 4} if output_stride == 8 else {4: network.last_stage_dilation}
    for index, dilation in dilations.items():
        _dilate(stages[index], dilation, first_block_dilation)
    backbone = Backbone(stages, CHANNELS[network.backbone])
    backbone.freeze(network.frozen_stages)
    return backbone


def _load_initial(model: nn.Module, network: NetworkConfig, weights_file: Path | None) -> None:
    """Fill a torchvision model with the weights that the configuration names."""
    require_weights(network, weights_file)
    if network.weights == "none":
        return
    if network.weights.startswith("imagenet"):
        model.load_state_dict(published_state(network))
        return
    assert weights_file is not None  # or require_weights would have refused
    load_state_file(model, network.backbone, weights_file)


def published_state(network: NetworkConfig) -> dict[str, Any]:
    """Return the ImageNet weights of a name, downloaded unless torch's cache has them.

    The file's name ends in the first digits of its SHA-256, which are checked; torch does so after
    a download only. Raises WeightsError for another content, or if the server is silent for longer
    than ANSWER_LIMIT_S.
    """
    url = PUBLISHED + IMAGENET_FILES[network.backbone, network.weights]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.removeprefix(PUBLISHED)
    digits = cached.stem.rpartition("-")[2]
    if cached.exists() and not file_digest(cached).startswith(f"sha256:{digits}"):
        raise WeightsError(
            f"{cached}: its SHA-256 does not begin with {digits}, so it is damaged; delete it, and "
            "it will be downloaded again"
        )
    usual = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_LIMIT_S)  # torch sets no limit
    try:
        return load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # no connection; another hash than the name's
        raise WeightsError(f"{url}: {error}; give a downloaded copy with --weights FILE") from None
    finally:
        socket.setdefaulttimeout(usual)


def _stages_of(model: nn.Module) -> list[nn.Module]:
    """Cut a whole network into five stages, without its classifier."""
    if isinstance(model, models.ResNet):
        stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
        return [stem, model.layer1, model.layer2, model.layer3, model.layer4]
    if isinstance(model, models.MobileNetV2):
        cuts = itertools.pairwise((0, 2, 4, 7, 14, 19))
        return [model.features[start:stop] for start, stop in cuts]
    return list(model.children())


def _resnet10_narrow() -> nn.Sequential:
    return nn.Sequential(
        conv_norm_relu(3, 24, 3, stride=2),
        nn.Sequential(_block(24, 24, stride=2)),
        nn.Sequential(_block(24, 48, stride=2)),
        nn.Sequential(_block(48, 96, stride=2)),
        nn.Sequential(_block(96, 128, stride=1)),
    )


def _block(in_channels: int, channels: int, *, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    return BasicBlock(in_channels, channels, stride, shortcut)


def _dilate(stage: nn.Module, dilation: int, first_block: Literal["full", "half"]) -> None:
    """Replace a stage's stride by `dilation` (1, 2, 4) in its convolutions, in place.

    first_block `half`: the convolution that loses its stride gets the dilation of the stage before,
    half as much, as in torchvision's replace_stride_with_dilation: it sees the same pixels as when
    its weights were learned. `full`: it is dilated like the others (DeepLabv2).
    """
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            rate = dilation
            if conv.stride != (1, 1):
                halved = max(1, dilation // 2)
                conv.stride, rate = (1, 1), halved if first_block == "half" else dilation
            if conv.kernel_size != (1, 1):
                conv.dilation = conv.padding = (rate, rate)
