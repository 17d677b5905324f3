"""Named starting points for a run, for labels and for the segmentation network.

A table's cell is a preset with a few settings replaced.
"""

from types import MappingProxyType

from wsss.config import RunConfig
from wsss.overrides import apply_overrides
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig, RandomWalkConfig

PAPER = RunConfig()
"""The paper's full setting: ResNet50-FPN, crop 512, 10,582 images. Needs GPUs and all of VOC.

Where the paper is silent, IRN's. docs/paper.md says which readings were tried and which train well.
"""

IRN = apply_overrides(PAPER, {"network.feature_map": "plain"})
"""The CAMs of IRN (Ahn et al., CVPR 2019), trained and inferred as by its public code.

`make calibrate` expects their published score, 48.3 mIoU on VOC's train images. IRN has no focused
or unfocused parts; here they train at the backbone's rate, as they fail at the classifier's.
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
        "train.parts_lr_multiplier": 10.0,  # works with warm-up and clipping
        "train.warmup_iterations": 25,
        "train.clip_norm": 5.0,
        "labels.scales": (0.5, 1.0, 1.5),
    },
)
"""Real pictures on a laptop, from ImageNet weights of a MobileNetV2.

Without warm-up, clipping and the identity start, three views and the full module end at the label
prior; none of these is in the paper.
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
        "train.lr": 0.1,  # .2: lower AUC with more spread, docs/results.md
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

PAPER_DEEPLAB = DeepLabConfig()
"""DeepLabv2-ResNet50 on 10,582 images: the paper's settings where it gives them, the rest as in
kazuto1011/deeplab-pytorch. Needs a GPU and all of VOC.
"""

SHORT_DEEPLAB = DeepLabConfig(
    backbone="mobilenet_v2",
    output_stride=16,
    first_block_dilation="half",  # this and the other departures below: measured that way
    rates=(3, 6, 9, 12),  # half of DeepLabv2's, at twice its stride
    frozen_stages=3,
    iterations=510,  # ten passes over 411 images
    batch_size=8,
    crop_size=193,
    scale_jitter=(0.4, 1.0),
    num_scales=None,
    loss_size="image",
    lr=0.001,
    head_bias_lr_multiplier=10.0,
    head_bias_decay=True,
    lr_step=1,
    clip_norm=5.0,  # gradients start at norm 60; unclipped, lr .001 loses 15 steps, .005 diverges
    test_scales=(0.5, 0.75, 1.0),
)
"""Real pictures on a laptop, from ImageNet weights of a MobileNetV2: about a second per iteration
on one slow core. Clipping, scales, dilation, loss and learning rates are not DeepLabv2's.
"""

TINY_DEEPLAB = DeepLabConfig(
    backbone="resnet10_narrow",
    weights="none",
    output_stride=16,
    first_block_dilation="half",  # this and the other departures below: measured that way
    rates=(1, 2, 3, 4),
    batch_norm="train",
    iterations=300,
    batch_size=8,
    crop_size=97,
    scale_jitter=(0.5, 1.0),
    num_scales=None,
    loss_size="image",
    lr=0.05,
    head_lr_multiplier=1.0,
    head_bias_lr_multiplier=1.0,
    head_bias_decay=True,
    lr_step=1,
    clip_norm=1.0,
    test_scales=(0.75, 1.0),
)
"""The drawn data set, from random weights, in under a minute of one slow core.

Trained on the masks of its 160 pictures, it reached 66.8 mIoU on the 48 of val.
"""

DEEPLAB_PRESETS = MappingProxyType(
    {"tiny": TINY_DEEPLAB, "short": SHORT_DEEPLAB, "paper": PAPER_DEEPLAB, "irn": PAPER_DEEPLAB}
)

PAPER_LABELS = PseudoLabelConfig()

SHORT_LABELS = PseudoLabelConfig(
    random_walk=RandomWalkConfig(crop_size=160, min_long_side=200, max_long_side=360)
)
"""Affinity learned from small crops, in a minute on one slow core."""

TINY_LABELS = PseudoLabelConfig(
    random_walk=RandomWalkConfig(
        frozen_backbone=False,  # its weights are random
        crop_size=96,
        min_long_side=96,
        max_long_side=160,
        stride=4,
        batch_size=8,
        epochs=10,
        lr=0.1,
        head_lr_multiplier=1.0,
        log_steps=5,
    )
)
"""The drawn data set: small pictures, and a backbone trained on them alone. The affinity is as
likely to harm as to help: rounding alone changes its label mIoU by five points.
"""

LABEL_PRESETS = MappingProxyType(
    {"tiny": TINY_LABELS, "short": SHORT_LABELS, "paper": PAPER_LABELS, "irn": PAPER_LABELS}
)
