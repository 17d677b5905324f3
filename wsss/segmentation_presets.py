"""Named starting points for labels and the segmentation network, beside those of presets.py."""

from types import MappingProxyType

from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig, RandomWalkConfig

PAPER_DEEPLAB = DeepLabConfig()
"""DeepLabv2-ResNet50 on 10,582 images: the paper's settings as far as it says them, the rest as in
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
    clip_norm=5.0,  # first gradients have norm 60; unclipped, .001 loses 15 steps, .005 diverges
    test_scales=(0.5, 0.75, 1.0),
)
"""Real pictures on a laptop, from ImageNet weights of a MobileNetV2: about a second an iteration on
one slow core. Clipping, the scales, and how dilation, loss and rates are set are not DeepLabv2's.
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

Trained on the masks of its 160 pictures, it came to 66.8 mIoU on the 48 of val.
"""

DEEPLAB_PRESETS = MappingProxyType(
    {"tiny": TINY_DEEPLAB, "short": SHORT_DEEPLAB, "paper": PAPER_DEEPLAB, "irn": PAPER_DEEPLAB}
)

PAPER_LABELS = PseudoLabelConfig()

SHORT_LABELS = PseudoLabelConfig(
    random_walk=RandomWalkConfig(crop_size=160, min_long_side=200, max_long_side=360)
)
"""Affinity learned at the size of the pictures' smaller half, a minute of one slow core."""

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
"""The drawn data set: small pictures, and a backbone that has seen nothing else. Its affinity is as
likely to harm as to help: rounding moves its label mIoU by five points.
"""

LABEL_PRESETS = MappingProxyType(
    {"tiny": TINY_LABELS, "short": SHORT_LABELS, "paper": PAPER_LABELS, "irn": PAPER_LABELS}
)
