"""Ids: what changes a result changes them, what does not leaves them alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from switches import values_of

from wsss.config import Added, RunConfig
from wsss.gpu_check.trainings import PARTS as PART_NAMES
from wsss.identity import cam_id, canonical, canonical_json, config_id, run_id
from wsss.method.losses import cam_losses
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS

ENHANCED, DECREASED = {"views.enhanced": True}, {"views.decreased": True}
BOTH = ENHANCED | DECREASED
PARTS = {f"network.{name}": True for name in PART_NAMES}
ADDED = {
    f"{section}.{name}": (field, mark)
    for section, known in RunConfig.model_fields.items()
    for name, field in getattr(known.annotation, "model_fields", {}).items()
    for mark in field.metadata
    if isinstance(mark, Added)
}
"""The settings that are not the paper's, each with its mark: nobody has to list them here."""
ADDED_SWITCHES = {key: values_of(field) for key, (field, mark) in ADDED.items() if not mark.switch}
LIVE = apply_overrides(
    RunConfig(),
    BOTH
    | PARTS
    | {"network.affinity": "softmax"}
    | {switch: values[-1] for switch, values in ADDED_SWITCHES.items()},
)
"""A configuration in which every setting has an effect."""

DEFAULTS = RunConfig().flat()
OF_NO_RULE: dict[str, Any] = {
    "data.train_split": "train",
    "data.eval_split": "train_aug",
    "network.weights": "none",
    "train.clip_norm": 5.0,
    "labels.scales": (1.0,),
    "labels.threshold_range": (0.1, 0.5),
}


def another(key: str, value: Any) -> Any:
    """Return a value of a setting that is not this one."""
    section, _, name = key.rpartition(".")
    model = RunConfig.model_fields[section].annotation if section else RunConfig
    if few := values_of(model.model_fields[name]):  # type: ignore[union-attr]
        return next(other for other in few if other != value)
    if key in OF_NO_RULE:
        return OF_NO_RULE[key]
    if isinstance(value, str):
        return f"{value}x"
    return 2 * value or 1 if isinstance(value, int) else value / 2 or 0.5


OTHER_VALUES = {key: another(key, value) for key, value in DEFAULTS.items()}
SCORING = {key for key in OTHER_VALUES if key.startswith("labels.")} | {
    "data.eval_split",
    "data.fingerprint",
}


def keys(section: str, *names: str) -> list[str]:
    return [f"{section}.{name}" for name in names]


MERGE = keys("transfer", "belongs", "half_of", "belongs_score")
OF_UNFOCUSED = keys("network", "module_placement", "association_values")
TRANSFER = [key for key in OTHER_VALUES if key.startswith("transfer.")]
INERT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no view": (
        {},
        [
            *keys("views", "alpha_enhanced", "beta_enhanced", "alpha_decreased", "beta_decreased"),
            *keys("views", "reading", "padding"),
            *TRANSFER,
            "train.cls_over_views",
        ],
    ),
    "no decreased view, so no merge rule": (
        ENHANCED,
        [*keys("views", "alpha_decreased", "beta_decreased"), *MERGE],
    ),
    "no enhanced view, so no merge rule": (
        DECREASED,
        [*keys("views", "alpha_enhanced", "beta_enhanced"), *MERGE, "transfer.similarity_pairs"],
    ),
    "two views": (BOTH, ["transfer.single_view"]),
    "focused parts alone": ({"network.channel_attention": True}, OF_UNFOCUSED),
    "an association of the module's input": ({"network.context_association": True}, OF_UNFOCUSED),
    "no similarity loss": (BOTH | {"transfer.lambda_s": 0}, ["transfer.similarity_pairs"]),
    "no background loss, the merged CAM unused": (
        BOTH | {"transfer.lambda_bs": 0},
        [*keys("transfer", "background_map", "merged_gradient"), *MERGE],
    ),
    "no background loss, the merged CAM used": (
        BOTH | {"transfer.lambda_bs": 0, "transfer.similarity_pairs": "prose"},
        ["transfer.background_map"],
    ),
    "classification loss alone": (
        BOTH | {"transfer.lambda_s": 0, "transfer.lambda_bs": 0},
        [key for key in TRANSFER if not key.startswith("transfer.lambda")],
    ),
    "no pyramid": (
        {"network.feature_map": "plain"},
        ["network.fpn_channels", "train.pyramid_lr_multiplier"],
    ),
    "no part": (
        {},
        keys("network", "se_ratio", "atrous", "atrous_channels", "atrous_start")
        + keys("network", "affinity_residual", "affinity_temperature")
        + [*OF_UNFOCUSED, "train.parts_lr_multiplier"],
    ),
    "no softmax": (PARTS, ["network.affinity_temperature"]),
    "parallel layers as wide as their residual": (
        PARTS | {"network.atrous": "parallel", "network.atrous_start": "identity"},
        ["network.atrous_channels"],
    ),
}
INERT |= {
    f"{key} where {mark.switch} is {value}": ({f"network.{mark.switch}": value}, [key])
    for key, (_, mark) in ADDED.items()
    for value in ADDED_SWITCHES.get(f"network.{mark.switch}", ())
    if value not in mark.on
}
INERT_CASES = [(name, key) for name, (_, idle) in INERT.items() for key in idle]


def change(config: RunConfig, key: str) -> RunConfig:
    """Give a setting another value than it has."""
    return apply_overrides(config, {key: another(key, config.flat()[key])})


@pytest.mark.parametrize("key", [key for key in OTHER_VALUES if key != "transfer.single_view"])
def test_every_live_setting_changes_the_run_and_those_of_scoring_alone_keep_the_training(
    key: str,
) -> None:
    changed = change(LIVE, key)
    assert run_id(changed) != run_id(LIVE)
    assert (cam_id(changed) == cam_id(LIVE)) == (key in SCORING)
    assert (config_id(changed) == config_id(LIVE)) == (key == "rng_seed")


@pytest.mark.parametrize(("name", "key"), INERT_CASES)
def test_an_inert_setting_changes_no_id(name: str, key: str) -> None:
    config = apply_overrides(RunConfig(), INERT[name][0])
    changed = change(config, key)
    assert run_id(changed) == run_id(config)
    assert cam_id(changed) == cam_id(config)
    assert canonical(changed) == canonical(config)


def test_settings_come_alive_with_the_part_or_loss_that_reads_them() -> None:
    fixed_score = ENHANCED | {"transfer.background_map": "fixed_score"}
    prose = BOTH | {"transfer.lambda_bs": 0, "transfer.similarity_pairs": "prose"}
    lives: list[tuple[dict[str, Any], str]] = [
        (fixed_score, "transfer.belongs_score"),
        (prose, "transfer.belongs"),
        (prose, "transfer.belongs_score"),
        (prose, "transfer.half_of"),
        (prose, "transfer.merged_gradient"),
        (BOTH | {"transfer.lambda_s": 0}, "transfer.l1_reduction"),
        (BOTH | {"transfer.lambda_s": 0}, "transfer.cam_activation"),
        (BOTH | {"transfer.lambda_bs": 0}, "transfer.cam_activation"),
        (ENHANCED, "views.reading"),
        (DECREASED, "views.padding"),
        (ENHANCED, "transfer.merged_gradient"),
        (ENHANCED | {"transfer.single_view": "merged"}, "transfer.half_of"),
        (ENHANCED, "train.cls_over_views"),
        ({"network.context_association": True}, "network.affinity"),
        (
            {"network.multi_scale_atrous": True, "network.atrous": "parallel"},
            "network.atrous_channels",
        ),
        (
            {"network.multi_scale_atrous": True, "network.atrous_start": "identity"},
            "network.atrous_channels",
        ),
        ({"network.channel_attention": True}, "network.se_ratio"),
        ({"network.feature_map": "fpn_p3"}, "network.fpn_channels"),
    ]
    for overrides, key in lives:
        config = apply_overrides(RunConfig(), overrides)
        assert cam_id(change(config, key)) != cam_id(config), (overrides, key)


def choices(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Overrides which give each setting its default or its other value."""
    return st.fixed_dictionaries(
        {key: st.sampled_from([DEFAULTS[key], OTHER_VALUES[key]]) for key in names}
    )


EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@EXAMPLES
@given(choices(list(OTHER_VALUES)))
def test_canonical_settings_are_canonical_themselves(overrides: dict[str, Any]) -> None:
    config = apply_overrides(RunConfig(), overrides)
    assert canonical(canonical(config)) == canonical(config)
    assert run_id(canonical(config)) == run_id(config)
    assert RunConfig.model_validate_json(canonical_json(config)) == canonical(config)


@EXAMPLES
@given(
    choices(TRANSFER),
    st.sampled_from(["transfer.lambda_s", "transfer.lambda_bs", ""]),
    st.sampled_from(TRANSFER),
    st.sampled_from([ENHANCED, BOTH]),
)
def test_two_configurations_with_one_id_have_one_loss_and_one_gradient(
    overrides: dict[str, Any], unused: str, key: str, views: dict[str, Any]
) -> None:
    base = apply_overrides(RunConfig(), overrides | views | ({unused: 0} if unused else {}))
    changed = change(base, key)
    if run_id(base) == run_id(changed):
        for first, second in zip(behaviour(base), behaviour(changed), strict=True):
            assert torch.equal(first, second)


def behaviour(config: RunConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """The total loss and its gradient on fixed CAMs."""
    generator = torch.Generator().manual_seed(0)
    num_views = 1 + len(config.views.names)
    shared = torch.randn(1, 2, 3, 4, 4, generator=generator)
    cams = shared + torch.randn(num_views, 2, 3, 4, 4, generator=generator)
    cams.requires_grad_()
    present = torch.tensor([[1.0, 0, 1], [1, 1, 1]])
    total = cam_losses(cams.mean((3, 4)), cams, present, config.views, config.transfer).total
    total.backward()
    assert cams.grad is not None
    return total.detach(), cams.grad


def test_ids_of_what_lies_in_stores_stay() -> None:
    assert {name: cam_id(config) for name, config in PRESETS.items()} == {
        "tiny": "b4a01a90dd5c",
        "short": "042ba20ee1e5",
        "paper": "71c85091c664",
        "irn": "3230d683812f",
    }
    assert run_id(RunConfig()) == "f3721f6ac7a6"


def test_what_a_single_view_is_compared_with_matters_where_its_loss_does() -> None:
    def ids(**transfer: Any) -> int:
        given = ENHANCED | {f"transfer.{key}": value for key, value in transfer.items()}
        kinds = [given | {"transfer.single_view": kind} for kind in ("half", "full", "merged")]
        return len({cam_id(apply_overrides(RunConfig(), kind)) for kind in kinds})

    assert ids() == 3
    assert ids(lambda_s=0) == 2  # M^o is merged or not
    assert ids(lambda_bs=0) == 2  # L_s is whole or half
    assert ids(lambda_s=0, lambda_bs=0) == 1
