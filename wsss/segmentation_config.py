"""Settings of the second half: pseudo-label PNGs, their refinement, and the segmentation network.

Not in `RunConfig`, whose ids are those of CAM trainings: changing anything here never retrains a
CAM network. Each field says why its default was chosen; "(open)" as in config.py.
"""

from typing import Annotated, Literal

from pydantic import Field

from wsss.config import (
    ASCENDING,
    NO_MINUS_ZERO,
    Count,
    CropSize,
    Decay,
    Dilation,
    Pixels,
    Positive,
    Precision,
    Rate,
    Scale,
    Scales,
    Seed,
    Settings,
    Stages,
    UnitFloat,
    WeightsName,
)

Rounds = Annotated[int, Field(ge=1, le=1_000, strict=True)]
"""Of a refinement of label maps."""
Dilations = Annotated[tuple[Dilation, ...], Field(min_length=1, max_length=32)]


class CrfConfig(Settings):
    """Dense CRF (Kraehenbuehl and Koltun): two Gaussian kernels over a label's unary costs."""

    preset: Literal["psa", "irn", "deeplab"] = Field(
        "irn",
        description="(open) published kernels and unary costs, listed in labels/refine/crf.py: psa "
        "(tool/imutils.py), irn (misc/imutils.py, from a hard label map), deeplab "
        "(DeepLabv2-ResNet101; colour kernel chosen on 100 pixel masks of VOC val)",
    )
    iterations: Rounds = Field(10, description="mean-field steps, 10 in all three")


class PamrConfig(Settings):
    """Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020), by local affinities."""

    iterations: Rounds = Field(10, description="the authors' PAMR_ITER")
    dilations: Dilations = Field(
        (1, 2, 4, 8, 12, 24), description="the authors' PAMR_KERNEL, 8 neighbours each"
    )


class RandomWalkConfig(Settings):
    """Affinity random walk: a learned affinity of near pixels spreads CAMs (PSA, IRN).

    Defaults that are not the published values were chosen on real pictures at small scale, with
    pixel ground truth. The walk helps at background scores of .25 and more, not at .15.
    """

    ordered = (("confident_background", "confident_foreground"), ("min_long_side", "max_long_side"))

    stride: Literal[4, 8, 16] = Field(8, description="of the feature map (PSA: 8, IRN: 4)")
    radius: Annotated[int, Field(ge=1, le=100, strict=True)] = Field(
        5, description="pixels of the feature map (PSA: 5; IRN: 5, trained with 10)"
    )
    beta: Positive = Field(10.0, description="power that sharpens affinities (PSA: 8, IRN: 10)")
    log_steps: Annotated[int, Field(ge=0, le=10, strict=True)] = Field(
        7, description="2^this steps (PSA, IRN: 8)"
    )
    walked_scale: Literal["maximum", "kept"] = Field(
        "maximum",
        description="maximum: each class divided by its maximum after the walk (IRN: by that of "
        "all classes); kept: unchanged, so that a long walk floods an image less",
    )
    confident_foreground: UnitFloat = Field(
        0.50, description="above it, a CAM is confident foreground (IRN: .30; PSA's power 4: .28)"
    )
    confident_background: UnitFloat = Field(
        0.20, description="up to it, CAMs are confident background (IRN: .05; PSA's power 32: .08)"
    )
    frozen_backbone: bool = Field(True, description="IRN trains the heads only; PSA trains all")
    epochs: Count = Field(3, description="of affinity training (IRN: 3)")
    lr: Rate = Field(0.5, description="of the new layers (IRN: 0.1, PSA: 1)")
    head_lr_multiplier: Positive = Field(
        10.0, description="new layers over backbone (PSA: 10); no effect with a frozen backbone"
    )
    momentum: Literal["standard", "legacy"] = Field(
        "standard",
        description="(open) as in TrainConfig; distances are means over channels, whose gradients "
        "are small: IRN's legacy momentum learns slowly",
    )
    weight_decay: Decay = Field(1e-4, description="IRN: 1e-4")
    batch_size: Count = Field(16, description="IRN: 32")
    crop_size: CropSize = Field(256, description="pixels (IRN: 512)")
    min_long_side: Pixels = Field(250, description="pixels; IRN: half the image")
    max_long_side: Pixels = Field(750, description="pixels; IRN: one and a half times the image")
    precision: Precision = Field("tf32", description="of training and walk; as in TrainConfig")
    rng_seed: Seed = 0


class PseudoLabelConfig(Settings):
    """From CAMs to the label PNGs that train the segmentation network."""

    ordered = (("confident_background", "confident_foreground"),)

    background: Literal["fixed", "confident"] = Field(
        "fixed",
        description="fixed: one background score; confident: foreground above one score, "
        "background below another, 255 between (IRN)",
    )
    background_score: UnitFloat = Field(
        0.15, description="(open) of `fixed`, without a random walk"
    )
    walked_background_score: UnitFloat = Field(
        0.25, description="of `fixed` after a random walk, which widens CAMs (IRN: .25)"
    )
    confident_foreground: UnitFloat = Field(0.30, description="IRN's conf_fg_thres")
    confident_background: UnitFloat = Field(0.05, description="IRN's conf_bg_thres")
    refinement: Literal["none", "crf", "pamr", "random_walk", "random_walk_crf"] = Field(
        "none", description="(open) the paper does not name its refinement"
    )
    crf: CrfConfig = CrfConfig()
    pamr: PamrConfig = PamrConfig()
    random_walk: RandomWalkConfig = RandomWalkConfig()

    @property
    def walks(self) -> bool:
        """Whether there is a random walk."""
        return self.refinement.startswith("random_walk")

    @property
    def score(self) -> float:
        """The background score of `fixed`, with or without a walk."""
        return self.walked_background_score if self.walks else self.background_score


class DeepLabConfig(Settings):
    """DeepLabv2: a dilated backbone and a sum of four atrous classifiers (Chen et al., 2018).

    "Reference" is kazuto1011/deeplab-pytorch, which many weakly supervised papers use; where a
    field names it, the default is its value. docs/segmentation.md compares the two.
    """

    backbone: Literal["resnet50", "resnet18", "mobilenet_v2", "resnet10_narrow"] = Field(
        "resnet50", description="IV-B"
    )
    weights: WeightsName = Field("imagenet_v1", description="as in NetworkConfig")
    output_stride: Literal[8, 16] = Field(8, description="DeepLabv2: 8; 16 for small machines")
    first_block_dilation: Literal["full", "half"] = Field(
        "full",
        description="dilation of the convolution that lost its stride, in a stage's first block; "
        "full: that of the other blocks (reference; 2 and 4 in stages 4 and 5 at output stride 8); "
        "half: torchvision's, the strided network's map on a finer grid",
    )
    rates: Dilations = Field((6, 12, 18, 24), description="DeepLabv2's ASPP-L, at output stride 8")
    frozen_stages: Stages = Field(0, description="as in NetworkConfig")
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen",
        description="frozen statistics, scale and shift (DeepLabv2); train: for random weights, "
        "which have no statistics worth freezing",
    )
    iterations: Count = Field(20_000, description="(open) DeepLabv2: 20,000")
    batch_size: Count = Field(10, description="DeepLabv2: 10")
    crop_size: CropSize = Field(321, description="DeepLabv2: 321")
    scale_jitter: Annotated[tuple[Scale, Scale], ASCENDING] = Field(
        (0.5, 1.5), description="DeepLabv2: times the image's own size"
    )
    num_scales: Annotated[int, Field(ge=2, le=1000, strict=True)] | None = Field(
        5,
        description="evenly spaced factors of scale_jitter, including both ends, one drawn for "
        "each crop (reference: .5, .75, 1, 1.25, 1.5); null: any factor between the ends",
    )
    loss_size: Literal["feature_map", "image"] = Field(
        "feature_map",
        description="where the cross entropy is taken; feature_map: logits unchanged, labels by "
        "nearest neighbour (reference; 41 x 41 for a crop of 321); image: logits upsampled to the "
        "crop, so that every labelled pixel counts",
    )
    lr: Rate = Field(2.5e-4, description="of the backbone (DeepLabv2)")
    head_lr_multiplier: Positive = Field(
        10.0, description="classifiers' weights over backbone (DeepLabv2)"
    )
    head_bias_lr_multiplier: Positive = Field(
        20.0, description="classifiers' biases over backbone (DeepLabv2's prototxt, reference)"
    )
    head_bias_decay: bool = Field(
        False, description="whether weight_decay acts on these biases (reference: no)"
    )
    lr_step: Count = Field(
        10, description="iterations between two changes of the rate (reference: 10)"
    )
    momentum: Annotated[float, Field(ge=0, lt=1, strict=True), NO_MINUS_ZERO] = 0.9
    weight_decay: Decay = 5e-4
    poly_power: Positive = 0.9
    clip_norm: Positive | None = Field(
        None, description="L2 norm to which gradients are clipped; DeepLabv2 does not"
    )
    precision: Precision = Field("tf32", description="of training and inference; see TrainConfig")
    test_scales: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    test_flip: bool = True
    test_crf: bool = Field(False, description="(open) dense CRF over the network's output")
    rng_seed: Seed = 0
