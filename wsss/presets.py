"""Named starting points for a run. A table's cell is a preset with a few settings replaced."""

from types import MappingProxyType

from wsss.config import RunConfig
from wsss.overrides import apply_overrides

PAPER = RunConfig()
"""The paper's full setting: ResNet50-FPN, crop 512, 10,582 images. Needs GPUs and all of VOC.

Where the paper is silent it is IRN's. docs/paper.md says which readings were tried and which train.
"""

IRN = apply_overrides(PAPER, {"network.feature_map": "plain"})
"""The CAMs of IRN (Ahn et al., CVPR 2019), step for step as its public code trains and infers them.

Their published score, 48.3 mIoU on VOC's train images, is what `make calibrate` expects. IRN has no
focused or unfocused parts; here they train at the backbone's rate, as they do not at the
classifier's.
"""

SHORT = apply_overrides(
    PAPER,
    {
        "network.backbone": "mobilenet_v2",
        "network.feature_map": "plain",
        "network.frozen_stages": 4,  # few images
        "network.last_stage_dilation": 2,  # better on small crops: 33.3 against 30.7 mIoU at .15
        "network.atrous_channels": 64,
        "network.atrous_start": "identity",
        "network.affinity_residual": True,
        "train.epochs": 8,
        "train.crop_size": 224,
        "train.min_long_side": 256,
        "train.max_long_side": 448,
        "train.lr": 0.02,
        "train.parts_lr_multiplier": 10.0,  # with warm-up and clipping, parts stand it
        "train.warmup_iterations": 25,
        "train.clip_norm": 5.0,
        "labels.scales": (0.5, 1.0, 1.5),
    },
)
"""Real pictures on a laptop, from ImageNet weights of a MobileNetV2.

Warm-up, clipping and the identity start keep three views and the full module from ending at the
label prior; none of them is in the paper.
"""

TINY = apply_overrides(
    PAPER,
    {
        "network.backbone": "resnet10_narrow",
        "network.weights": "none",
        "network.frozen_stages": 0,
        "network.last_stage_dilation": 2,
        "network.fpn_channels": 64,
        "network.atrous_channels": 64,
        "network.atrous_start": "identity",
        "network.affinity_residual": True,
        "network.batch_norm": "train",  # random weights have no statistics worth freezing
        "train.epochs": 8,
        "train.batch_size": 8,
        "train.crop_size": 96,
        "train.min_long_side": 96,
        "train.max_long_side": 160,
        "train.lr": 0.1,  # .2: lower and more spread in AUC, docs/results.md
        "train.head_lr_multiplier": 1.0,  # all layers are new
        "train.momentum": "standard",
        "train.clip_norm": 1.0,
        "labels.scales": (1.0, 1.5),
    },
)
"""The drawn data set, from random weights, in under a minute per trial.

With frozen statistics or without the identity start, the full module under both views stays at the
label prior within these few iterations.
"""

PRESETS = MappingProxyType({"tiny": TINY, "short": SHORT, "paper": PAPER, "irn": IRN})
