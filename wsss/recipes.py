"""Recipes: sets of settings as a whole code base, or the paper read literally, would use them.

Changing one reading at a time does not show what a recipe does, in which one setting makes up for
another. A recipe is applied to a preset, before a table's cells: backbone, picture sizes and
learning rates are the preset's. Sources are the public code of the papers named.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from wsss.basics.printable import quoted
from wsss.config import RunConfig
from wsss.overrides import ConfigError, apply_overrides
from wsss.presets import PRESETS

LITERAL: Mapping[str, Any] = {
    "views.reading": "literal_clip",
    "transfer.l1_reduction": "sum",
    "transfer.ramp": 0.0,
    "transfer.empty_maps": "compare",
    "train.cls_reduction": "sum",
    "network.atrous": "zero_is_1x1",
    "network.association_values": "input",
}
"""The paper's equations as they are printed: Eq. 2 on 8-bit pixels (the enhanced view is all
white), Eq. 4 summed over the classes, the norms of Eq. 5 and 6 summed over classes and pixels,
D = 0 as no dilation, III-C's "input features"; and nothing that is not printed (ramp, empty maps).
"""

IRN: Mapping[str, Any] = {
    "network.feature_map": "plain",
    "network.batch_norm": "frozen",
    "train.momentum": "legacy",
}
"""IRN (Ahn et al., CVPR 2019), which has no views: its plain last map, frozen statistics and
optimiser, with the default transfer losses."""

SEAM: Mapping[str, Any] = {
    "network.feature_map": "plain",
    "network.batch_norm": "frozen",
    "transfer.cam_activation": "min_max",
    "transfer.l1_reduction": "all",
    "transfer.ramp": 0.0,
    "transfer.empty_maps": "compare",
    "transfer.single_view": "full",
    "transfer.merged_gradient": "stop",
    "transfer.lambda_s": 1.0,
    "transfer.lambda_bs": 1.0,
    "train.momentum": "legacy",
    "train.weight_decay": 5e-4,
    "train.color_jitter": 0.3,
    "labels.upsampling": "direct",
}
"""SEAM (Wang et al., CVPR 2020): maps scaled from their minimum to their maximum, compared over all
classes from the first iteration with weight 1. Both maps of its loss_er, here L_s, get a gradient;
the target of its loss_ecr, here M^o in L_bs, gets none. Left out: its pixel correlation, the
selection of loss_ecr's largest fifth, its loss on the lowest activations, and norms whose scale and
shift are not trained."""

PUZZLE_CAM: Mapping[str, Any] = {
    "network.feature_map": "plain",
    "network.batch_norm": "train",
    "network.frozen_stages": 0,
    "transfer.cam_activation": "raw",
    "transfer.l1_reduction": "all",
    "transfer.ramp": 0.5,
    "transfer.empty_maps": "compare",
    "transfer.single_view": "full",
    "transfer.merged_gradient": "flow",
    "transfer.lambda_s": 4.0,
    "train.cls_over_views": "sum",
    "train.momentum": "legacy",
    "train.nesterov": True,
    "train.bias_decay": False,
}
"""Puzzle-CAM (Jo and Yu, ICIP 2021): raw maps compared over all classes (absent ones count 0), with
a weight that rises to its README's 4 over the first half of the training; batch statistics, nothing
frozen. L_bs, which it lacks, keeps its weight. Left out: the doubled rate of its biases, the decay
of its norms' scales, and its choice of the epoch by pixel masks. Batch size and epochs (there 32
and 15) are the preset's."""

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"default": {}, "literal": LITERAL, "irn": IRN, "seam": SEAM, "puzzle_cam": PUZZLE_CAM}
)


def with_recipe(preset: str, recipe: str) -> str:
    """Return the name of a preset with a recipe: `short`, or `short-seam`.

    Raises ConfigError if there is no such preset or recipe.
    """
    if preset not in PRESETS:
        raise ConfigError(f"no preset {quoted(preset)}; there are: {', '.join(PRESETS)}")
    if recipe not in RECIPES:
        raise ConfigError(f"no recipe {quoted(recipe)}; there are: {', '.join(RECIPES)}")
    return preset if recipe == "default" else f"{preset}-{recipe}"


def preset_and_recipe(name: str) -> tuple[str, str]:
    """Return the preset and the recipe of such a name."""
    preset, dash, recipe = name.partition("-")
    return preset, recipe if dash else "default"


def named_config(name: str) -> RunConfig:
    """Return the configuration of a preset with or without a recipe. Raises ConfigError."""
    preset, recipe = preset_and_recipe(name)
    with_recipe(preset, recipe)  # refuses unknown ones
    return apply_overrides(PRESETS[preset], RECIPES[recipe])
