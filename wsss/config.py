"""Every setting that can change a result, as frozen models: what is trained, and how it is scored.

A `RunConfig` holds no path, device, worker count or address: two machines that run equal
configurations do the same experiment. Each field says why its default was chosen; "(open)" marks a
point that the paper leaves open, whose alternatives are the field's other values.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from wsss.basics.strict import Strict

NO_MINUS_ZERO = AfterValidator(lambda value: value + 0.0)
"""-0.0 becomes 0.0: it would have another id."""


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"starts at {ends[0]} above its end {ends[1]}; swap them")
    return ends


ASCENDING = AfterValidator(_ascending)
"""Of a range from a low to a high end."""

Count = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
"""Of epochs, iterations, images in a batch."""
Steps = Annotated[int, Field(ge=0, le=10_000_000, strict=True)]
"""A count that may be 0."""
Pixels = Annotated[int, Field(ge=1, le=16_384, strict=True)]
CropSize = Annotated[int, Field(ge=17, le=16_384, strict=True)]
"""Pixels; 16 would give one value per channel, of which BatchNorm knows no variance."""
Width = Annotated[int, Field(ge=1, le=16_384, strict=True)]
"""Channels of a layer, or what they are divided by."""
Dilation = Annotated[int, Field(ge=1, le=1_000, strict=True)]
Stages = Annotated[int, Field(ge=0, le=4, strict=True)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]
UnitFloat = Annotated[float, Field(ge=0, le=1, strict=True), NO_MINUS_ZERO]
Scale = Annotated[float, Field(ge=0.01, le=16, strict=True)]
"""Times an image's own size."""
Scales = Annotated[tuple[Scale, ...], Field(min_length=1, max_length=32)]
Rate = Annotated[float, Field(gt=0, le=10, strict=True)]
"""A learning rate. Usual are 0.0001 to 1; one above 10 is a typing error."""
Positive = Annotated[float, Field(gt=0, le=1e6, strict=True)]
"""A factor, power or norm."""
Weight = Annotated[float, Field(ge=0, le=1e6, strict=True), NO_MINUS_ZERO]
"""Of a loss, or of pixels."""
Decay = Annotated[float, Field(ge=0, le=1, strict=True), NO_MINUS_ZERO]
Offset = Annotated[float, Field(ge=-1e6, le=1e6, strict=True), NO_MINUS_ZERO]
"""Added to pixels of 0 to 255."""
Precision = Literal["fp32", "tf32", "bf16"]
"""See networks/precision.py."""
FileName = Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that becomes part of a path: it cannot lead out of its folder."""


def _named_weights(name: str) -> str:
    if not re.fullmatch(r"imagenet_v1|imagenet_v2|none|sha256:[0-9a-f]{64}", name):
        raise ValueError(
            "give imagenet_v1 (that of IRN, Puzzle-CAM and ReCAM), imagenet_v2 (torchvision's "
            "later recipe), none, or --weights FILE"
        )
    return name


WeightsName = Annotated[str, AfterValidator(_named_weights)]
"""A name of initial weights, which always means the same bytes."""


@dataclass(frozen=True)
class Added:
    """Marks a setting of a method that is not the paper's, for `wsss/identity.py`.

    At its default it is no part of an id, so results from before it was added keep their ids.
    """

    switch: str = ""
    """The setting of `network` without which it has no effect."""
    on: tuple[str, ...] = ()
    """The values of that switch with which it has one."""


class Settings(Strict):
    """Base of all settings."""

    ordered: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs of settings of which the first must not be above the second."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for pair in self.ordered:
            low, high = (getattr(self, name) for name in pair)
            if low > high:
                raise ValueError(f"{pair[0]} {low} is above {pair[1]} {high}; swap them")
        return self

    def flat(self) -> dict[str, Any]:
        """Return the settings with dotted names, `{"train.lr": 0.1, ...}`, in field order."""
        return dict(_leaves("", self.model_dump(mode="json")))


def _leaves(prefix: str, tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


class DataConfig(Settings):
    """Which images: a data set is named by its content, never by its path."""

    name: FileName = "VOC2012"
    fingerprint: FileName = Field("unknown", description="digest of splits, labels and masks")
    train_fingerprint: FileName = Field(
        "unknown",
        description="digest of the training split's list, pictures and image-level labels, part of "
        "a training's id",
    )
    train_split: FileName = Field("train_aug", description="10,582 images on VOC (IV-A)")
    eval_split: FileName = Field(
        "train", description="(open) scored against pixel masks: train, 1,464 images; or train_aug"
    )


class NetworkConfig(Settings):
    """The classification network whose last map gives the CAM (III-A, III-C, Figure 4)."""

    backbone: Literal["resnet50", "resnet18", "mobilenet_v2", "resnet10_narrow"] = Field(
        "resnet50", description="the paper's is resnet50; resnet10_narrow is for the drawn data"
    )
    weights: WeightsName = Field(
        "imagenet_v1",
        description="(open) initial weights: torchvision's first ImageNet ones (those of IRN, "
        "Puzzle-CAM and ReCAM), its second ones, none, or a file's digest",
    )
    feature_map: Literal["fpn", "plain", "fpn_p3"] = Field(
        "fpn",
        description="(open) fpn: feature pyramid fused to one map at stride 16; plain: the "
        "backbone's last map; fpn_p3: fused at stride 8",
    )
    fpn_channels: Width = Field(256, description="torchvision's width of an FPN")
    frozen_stages: Stages = Field(
        3,
        description="(open) stages kept at their initial weights, the stem being the first; IRN: 3",
    )
    last_stage_dilation: Annotated[int, Field(ge=1, le=2, strict=True)] = Field(
        1,
        description="(open) of the last stage, whose stride is 1 instead of 2: 1 (IRN, "
        "Puzzle-CAM, ReCAM), or 2, which keeps its field of view (torchvision)",
    )
    batch_norm: Literal["frozen", "train"] = Field(
        "frozen",
        description="(open) frozen statistics (IRN), so that all views share one forward; train: "
        "batch statistics, each view forwarded apart",
    )
    channel_attention: bool = Field(False, description="squeeze-and-excitation [24]")
    spatial_attention: bool = Field(False, description="7x7 over channel mean and maximum [25]")
    multi_scale_atrous: bool = Field(False, description="4-layer hybrid dilated convolution")
    context_association: bool = Field(False, description="cosine affinity of pixels, Eq. 3")
    se_ratio: Width = Field(16, description="(open) squeeze ratio, 16 in SE; 8 in others")
    module_placement: Literal["series", "parallel", "remaining"] = Field(
        "series",
        description="(open) unfocused parts after the focused ones (Figure 4); beside them; or "
        "beside them on (1 - A) x, III-C's 'remaining regions'",
    )
    atrous: Literal["one_to_four", "zero_is_1x1", "parallel"] = Field(
        "one_to_four",
        description="(open) Figure 4's 3x3 convolutions with D = 0, 1, 2, 3: dilation D + 1, in "
        "series; a 1x1, then 3x3 with dilation 1, 2, 3; or these four in parallel, summed",
    )
    atrous_channels: Width = Field(256, description="(open) C', width inside the stack")
    atrous_start: Literal["random", "identity"] = Field(
        "random",
        description="(open) identity: a residual whose scale starts at 0, so that training starts "
        "from the plain network",
    )
    affinity: Literal["relu_row_sum", "softmax"] = Field(
        "relu_row_sum", description="(open) activation and normalisation of the affinity"
    )
    affinity_temperature: Positive = Field(0.1, description="of the softmax affinity")
    association_values: Literal["own", "input"] = Field(
        "own",
        description="(open) what the association mixes: the features that it compares, or the "
        "module's input, H x W x C in III-C",
    )
    affinity_residual: bool = Field(
        False, description="(open) add the features to their mixture; the paper shows no sum"
    )
    pixel_correlation: Annotated[Literal["off", "module", "loss", "both"], Added()] = Field(
        "off",
        description="SEAM's, not the paper's: the CAM is refined by the affinity of pixels; it is "
        "pulled towards its refined self by the loss L_pc; or both",
    )
    correlation_channels: Annotated[Width, Added("pixel_correlation", ("module", "both"))] = Field(
        192, description="width of the embedding in which SEAM's module compares pixels; SEAM: 192"
    )


class ViewsConfig(Settings):
    """The enhanced and the decreased view, g' = alpha * g + beta (Eq. 2, IV-B)."""

    enhanced: bool = False
    decreased: bool = False
    alpha_enhanced: Weight = Field(1.5, description="IV-B")
    beta_enhanced: Offset = Field(300.0, description="IV-B, as printed; see `reading`")
    alpha_decreased: Weight = Field(0.8, description="IV-B")
    beta_decreased: Offset = Field(150.0, description="IV-B, as printed; see `reading`")
    reading: Literal[
        "beta_tenth",
        "literal_clip",
        "literal_unclipped",
        "wrap",
        "beta_thousandth",
        "decreased_negative",
        "about_mean",
        "slider",
    ] = Field(
        "beta_tenth",
        description="(open) what Eq. 2 does to 8-bit pixels; read literally, the enhanced view is "
        "all white. method/views.py defines each reading",
    )
    padding: Literal["before", "after"] = Field(
        "before", description="(open) Eq. 2 before the crop is padded, or after"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The adjusted views in use, in the network's order."""
        return tuple(name for name in ("enhanced", "decreased") if getattr(self, name))


class TransferConfig(Settings):
    """The attention transfer module's losses and merge rule (III-B, III-D)."""

    lambda_s: Weight = Field(0.5, description="weight of L_s in Eq. 7")
    lambda_bs: Weight = Field(0.5, description="weight of L_bs in Eq. 7")
    start: UnitFloat = Field(
        0.0,
        description="(open) share of the training after which L_s and L_bs start; .5: Figure 1's "
        "merged CAMs 'retrain' the backbone",
    )
    ramp: UnitFloat = Field(
        0.5,
        description="(open) share of the training over which their weights then rise to their full "
        "values (Puzzle-CAM: the first half); 0: at once, when most maps are still empty",
    )
    empty_maps: Literal["skip", "compare"] = Field(
        "skip",
        description="(open) a present class without a positive activation in one of the views: "
        "skipped in L_s and L_bs; or compared as a map of zeros, which gets no gradient and "
        "shrinks the other maps to a spike",
    )
    single_view: Literal["half", "full", "merged"] = Field(
        "half",
        description="(open) with one adjusted view: half of its distance, as Eq. 5 has it; all of "
        "it; or half, and M^o merged of this view and the original",
    )
    similarity_pairs: Literal["eq5", "prose"] = Field(
        "eq5", description="(open) (Mo,Md),(Mo,Me) as Eq. 5; or (Me,M^),(Md,M^) as III-B says"
    )
    cam_activation: Literal["relu_max", "min_max", "raw", "sigmoid"] = Field(
        "relu_max",
        description="(open) CAM inside the L1 losses; relu_max: ReLU over its maximum; min_max: "
        "ReLU, from its minimum to its maximum (SEAM)",
    )
    l1_reduction: Literal["all", "present", "sum"] = Field(
        "all",
        description="(open) mean over all classes and pixels (SEAM, Puzzle-CAM); over present "
        "classes and pixels, 13 times as large on VOC, which empties the maps; or the sum",
    )
    merged_gradient: Literal["stop", "flow"] = Field(
        "stop", description="(open) M^o supervises, so no gradient goes into it"
    )
    belongs: Literal["argmax", "threshold"] = Field(
        "argmax", description="(open) a pixel belongs to C: argmax with the background, or CAM > s"
    )
    belongs_score: UnitFloat = Field(0.15, description="(open) that background score s")
    half_of: Literal["cam", "sigmoid"] = Field(
        "cam",
        description="(open) the merge rule's .5 is on the normalised CAM; or on sigmoid(CAM), "
        "where it never acts, as a pixel that belongs to a class has a positive CAM",
    )
    background_map: Literal["one_minus_max", "fixed_score", "peaks", "background"] = Field(
        "one_minus_max",
        description="(open) M_b: 1 - max over classes, and per pixel the strongest class (SEAM); "
        "the score where background wins; peaks: 1 - max, and of each class only its one highest "
        "place; background: 1 - max alone",
    )


class TrainConfig(Settings):
    """Optimisation of the CAM network (IV-B and, where it is silent, IRN's practice)."""

    ordered = (("min_long_side", "max_long_side"),)

    epochs: Count = Field(5, description="(open) IRN: 5; Puzzle-CAM: 15")
    batch_size: Count = Field(16, description="(open) global batch; IRN: 16")
    crop_size: CropSize = Field(512, description="(open) pixels; IRN: 512")
    min_long_side: Pixels = Field(320, description="(open) pixels; IRN: 320")
    max_long_side: Pixels = Field(640, description="(open) pixels; IRN: 640")
    resize: Literal["bicubic", "bilinear"] = Field(
        "bicubic", description="filter of the crops' resize (IRN: bicubic)"
    )
    horizontal_flip: bool = True
    color_jitter: UnitFloat = Field(
        0.0,
        description="brightness, contrast and saturation vary by up to this share, hue by a third "
        "of it (PSA: .3, .1); a control that is not in the paper",
    )
    lr: Rate = Field(0.1, description="lr0, IV-B")
    head_lr_multiplier: Positive = Field(10.0, description="(open) classifier; IRN: 10")
    pyramid_lr_multiplier: Positive = Field(
        1.0, description="(open) FPN; at the classifier's rate it diverges within ten iterations"
    )
    parts_lr_multiplier: Positive = Field(
        1.0,
        description="(open) focused and unfocused parts; at the classifier's rate, trainings stay "
        "at the label prior or diverge (docs/paper.md)",
    )
    momentum: Literal["legacy", "standard"] = Field(
        "legacy",
        description="(open) legacy: as in the code of IRN, SEAM and Puzzle-CAM, which passes the "
        "weight decay as SGD's momentum; there the paper's 'momentum .9' is the name of Eq. 8's "
        "exponent. standard: .9, which diverges at this rate",
    )
    weight_decay: Decay = Field(1e-4, description="(open) IRN: 1e-4")
    bias_decay: bool = Field(
        True,
        description="whether weight_decay acts on biases and norms (IRN: on both; Puzzle-CAM: on "
        "norms' scales)",
    )
    nesterov: bool = Field(False, description="Nesterov's momentum (IRN: no; Puzzle-CAM: yes)")
    poly_power: Positive = Field(0.9, description="Eq. 8, per iteration")
    warmup_iterations: Steps = Field(0, description="linear warm-up; the paper has none")
    clip_norm: Positive | None = Field(None, description="global gradient norm; paper: none")
    cls_reduction: Literal["mean", "sum"] = Field(
        "mean", description="(open) Eq. 4 over classes; the batch is always averaged"
    )
    cls_over_views: Literal["mean", "sum"] = Field("mean", description="(open) L_cls over views")
    lambda_pc: Annotated[Positive, Added("pixel_correlation", ("loss", "both"))] = Field(
        0.1,
        description="weight of L_pc, a mean over present classes; SEAM's losses have 1, over all "
        "20, of which an image of VOC has 1.5",
    )
    precision: Precision = Field(
        "tf32",
        description="(open) of the training, see networks/precision.py; tf32: torch's default for "
        "convolutions on GPUs from Ampere on, and fp32 elsewhere",
    )


class LabelsConfig(Settings):
    """From CAMs to pseudo-labels and their score; changing these never retrains."""

    scales: Scales = Field((0.5, 1.0, 1.5, 2.0), description="(open) IRN's; single scale: [1.0]")
    flip: bool = Field(True, description="add the mirrored image's CAMs (IRN)")
    resize: Literal["bicubic", "bilinear"] = Field(
        "bicubic", description="(open) filter that scales images (IRN, Puzzle-CAM: bicubic)"
    )
    upsampling: Literal["multiple_of_16", "direct"] = Field(
        "multiple_of_16",
        description="(open) CAMs are enlarged to the next multiple of 16 of the image's size, then "
        "cut (IRN, Puzzle-CAM); or to the image's size at once",
    )
    precision: Precision = Field("tf32", description="of the inference; as in train")
    background_score: UnitFloat = Field(0.15, description="(open) fixed threshold; IRN: .15")
    threshold_range: Annotated[tuple[UnitFloat, UnitFloat], ASCENDING] = Field(
        (0.05, 0.80),
        description="where the best threshold is searched for, with pixel ground truth",
    )


class RunConfig(Settings):
    """One training and its score: the unit that tables are made of."""

    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    views: ViewsConfig = ViewsConfig()
    transfer: TransferConfig = TransferConfig()
    train: TrainConfig = TrainConfig()
    labels: LabelsConfig = LabelsConfig()
    rng_seed: Seed = 0
    repeat: Steps = Field(
        0, description="number of a repeated training with the same seed, to measure noise"
    )
