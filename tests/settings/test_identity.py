"""Ids: what changes a result changes them, what does not leaves them alone; and overrides."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from switches import values_of

from wsss.config import Added, RunConfig, TransferConfig, ViewsConfig
from wsss.identity import cam_id, canonical, canonical_json, config_id, run_id
from wsss.method.losses import cam_losses
from wsss.overrides import (
    ConfigError,
    apply_overrides,
    parse_assignments,
    read_config_file,
    validate,
)
from wsss.presets import PRESETS

torch.set_num_threads(1)

REPOSITORY = Path(__file__).parents[2]

ENHANCED, DECREASED = {"views.enhanced": True}, {"views.decreased": True}
BOTH = ENHANCED | DECREASED
PARTS = {
    f"network.{name}": True
    for name in (
        "channel_attention",
        "spatial_attention",
        "multi_scale_atrous",
        "context_association",
    )
}
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

OTHER_VALUES: dict[str, Any] = {
    "data.name": "drawn",
    "data.fingerprint": "abc",
    "data.train_fingerprint": "abc",
    "data.train_split": "train",
    "data.eval_split": "train_aug",
    "network.backbone": "resnet18",
    "network.weights": "none",
    "network.feature_map": "fpn_p3",
    "network.fpn_channels": 128,
    "network.frozen_stages": 1,
    "network.last_stage_dilation": 2,
    "network.batch_norm": "train",
    "network.channel_attention": False,
    "network.spatial_attention": False,
    "network.multi_scale_atrous": False,
    "network.context_association": False,
    "network.se_ratio": 8,
    "network.module_placement": "remaining",
    "network.atrous": "parallel",
    "network.atrous_channels": 64,
    "network.atrous_start": "identity",
    "network.affinity": "relu_row_sum",
    "network.affinity_temperature": 0.2,
    "network.association_values": "input",
    "network.affinity_residual": True,
    "views.enhanced": False,
    "views.decreased": False,
    "views.alpha_enhanced": 1.4,
    "views.beta_enhanced": 30.0,
    "views.alpha_decreased": 0.7,
    "views.beta_decreased": -15.0,
    "views.reading": "about_mean",
    "views.padding": "after",
    "transfer.lambda_s": 0.1,
    "transfer.lambda_bs": 0.0,
    "transfer.start": 0.5,
    "transfer.ramp": 0.0,
    "transfer.empty_maps": "compare",
    "transfer.single_view": "full",
    "transfer.similarity_pairs": "prose",
    "transfer.cam_activation": "raw",
    "transfer.l1_reduction": "sum",
    "transfer.merged_gradient": "flow",
    "transfer.belongs": "threshold",
    "transfer.belongs_score": 0.2,
    "transfer.half_of": "sigmoid",
    "transfer.background_map": "fixed_score",
    "train.epochs": 15,
    "train.batch_size": 32,
    "train.crop_size": 448,
    "train.min_long_side": 300,
    "train.max_long_side": 700,
    "train.resize": "bilinear",
    "train.horizontal_flip": False,
    "train.color_jitter": 0.3,
    "train.lr": 0.01,
    "train.head_lr_multiplier": 1.0,
    "train.pyramid_lr_multiplier": 10.0,
    "train.parts_lr_multiplier": 5.0,
    "train.momentum": "standard",
    "train.weight_decay": 0.0,
    "train.bias_decay": False,
    "train.nesterov": True,
    "train.poly_power": 1.0,
    "train.warmup_iterations": 25,
    "train.clip_norm": 5.0,
    "train.cls_reduction": "sum",
    "train.cls_over_views": "sum",
    "train.precision": "bf16",
    "labels.scales": (1.0,),
    "labels.flip": False,
    "labels.resize": "bilinear",
    "labels.upsampling": "direct",
    "labels.precision": "bf16",
    "labels.background_score": 0.2,
    "labels.threshold_range": (0.1, 0.5),
    "rng_seed": 1,
    "repeat": 1,
}
OTHER_VALUES |= {
    key: ADDED_SWITCHES[key][-2] if key in ADDED_SWITCHES else 2 * field.default
    for key, (field, _) in ADDED.items()
}
SCORING = {key for key in OTHER_VALUES if key.startswith("labels.")} | {
    "data.eval_split",
    "data.fingerprint",
}

VIEW_NUMBERS = ("alpha_enhanced", "beta_enhanced", "alpha_decreased", "beta_decreased")
INERT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no view": (
        {},
        [key for key in OTHER_VALUES if key.startswith("transfer.")]
        + [f"views.{name}" for name in (*VIEW_NUMBERS, "reading", "padding")]
        + ["train.cls_over_views"],
    ),
    "no decreased view, so no merge rule": (
        ENHANCED,
        [
            "views.alpha_decreased",
            "views.beta_decreased",
            "transfer.belongs",
            "transfer.half_of",
            "transfer.belongs_score",
        ],
    ),
    "no enhanced view, so no merge rule": (
        DECREASED,
        [
            "views.alpha_enhanced",
            "views.beta_enhanced",
            "transfer.belongs",
            "transfer.half_of",
            "transfer.belongs_score",
            "transfer.similarity_pairs",
        ],
    ),
    "two views": (BOTH, ["transfer.single_view"]),
    "focused parts alone": (
        {"network.channel_attention": True},
        ["network.module_placement", "network.association_values"],
    ),
    "an association of the module's input": (
        {"network.context_association": True},
        ["network.module_placement", "network.association_values"],
    ),
    "no similarity loss": (BOTH | {"transfer.lambda_s": 0}, ["transfer.similarity_pairs"]),
    "no background loss, the merged CAM unused": (
        BOTH | {"transfer.lambda_bs": 0},
        [
            "transfer.background_map",
            "transfer.merged_gradient",
            "transfer.belongs",
            "transfer.half_of",
            "transfer.belongs_score",
        ],
    ),
    "no background loss, the merged CAM used": (
        BOTH | {"transfer.lambda_bs": 0, "transfer.similarity_pairs": "prose"},
        ["transfer.background_map"],
    ),
    "classification loss alone": (
        BOTH | {"transfer.lambda_s": 0, "transfer.lambda_bs": 0},
        [
            key
            for key in OTHER_VALUES
            if key.startswith("transfer.") and not key.startswith("transfer.lambda")
        ],
    ),
    "no pyramid": (
        {"network.feature_map": "plain"},
        ["network.fpn_channels", "train.pyramid_lr_multiplier"],
    ),
    "no part": (
        {},
        [
            "network.se_ratio",
            "network.atrous",
            "network.atrous_channels",
            "network.atrous_start",
            "network.affinity_residual",
            "network.affinity_temperature",
            "network.module_placement",
            "network.association_values",
            "train.parts_lr_multiplier",
        ],
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
INERT_CASES = [(name, key) for name, (_, keys) in INERT.items() for key in keys]


def change(config: RunConfig, key: str) -> RunConfig:
    """Give a setting another value than it has."""
    if key == "network.affinity" and config.network.affinity == "relu_row_sum":
        return apply_overrides(config, {key: "softmax"})
    changed = apply_overrides(config, {key: OTHER_VALUES[key]})
    assert changed != config
    return changed


def test_the_list_of_other_values_holds_every_setting() -> None:
    assert set(OTHER_VALUES) == set(RunConfig().flat())


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


def choices(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Overrides which give each setting its default or its other value."""
    defaults = RunConfig().flat()
    return st.fixed_dictionaries(
        {key: st.sampled_from([defaults[key], OTHER_VALUES[key]]) for key in keys}
    )


TRANSFER_KEYS = [key for key in OTHER_VALUES if key.startswith("transfer.")]
EXAMPLES = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@EXAMPLES
@given(choices(TRANSFER_KEYS + [f"views.{name}" for name in (*VIEW_NUMBERS, "reading", "padding")]))
def test_without_a_view_no_setting_of_views_and_transfer_matters(overrides: dict[str, Any]) -> None:
    assert run_id(apply_overrides(RunConfig(), overrides)) == run_id(RunConfig())


@EXAMPLES
@given(choices(list(OTHER_VALUES)))
def test_canonical_settings_are_canonical_themselves(overrides: dict[str, Any]) -> None:
    config = apply_overrides(RunConfig(), overrides)
    assert canonical(canonical(config)) == canonical(config)
    assert run_id(canonical(config)) == run_id(config)
    assert RunConfig.model_validate_json(canonical_json(config)) == canonical(config)


@EXAMPLES
@given(
    choices(TRANSFER_KEYS),
    st.sampled_from(["transfer.lambda_s", "transfer.lambda_bs", ""]),
    st.sampled_from(TRANSFER_KEYS),
    st.sampled_from([ENHANCED, BOTH]),
)
def test_two_configurations_with_one_id_have_one_loss_and_one_gradient(
    overrides: dict[str, Any], unused: str, key: str, views: dict[str, Any]
) -> None:
    base = apply_overrides(RunConfig(), overrides | views | ({unused: 0} if unused else {}))
    value = base.flat()[key]
    other = OTHER_VALUES[key] if value != OTHER_VALUES[key] else RunConfig().flat()[key]
    changed = apply_overrides(base, {key: other})
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


def test_seeds_share_the_config_id_and_nothing_else() -> None:
    seeds = [LIVE.model_copy(update={"rng_seed": seed}) for seed in range(4)]
    assert len({config_id(config) for config in seeds}) == 1
    assert len({run_id(config) for config in seeds}) == 4
    assert len({cam_id(config) for config in seeds}) == 4


def test_equal_numbers_give_equal_ids_however_they_are_written() -> None:
    for written, number in ((1, 1.0), ("0.2", 0.2), (5e-1, 0.5)):
        first, second = (
            apply_overrides(LIVE, {"transfer.lambda_s": value}) for value in (written, number)
        )
        assert run_id(first) == run_id(second)
    scales = [apply_overrides(LIVE, {"labels.scales": value}) for value in ([1, 2], (1.0, 2.0))]
    assert run_id(scales[0]) == run_id(scales[1])


def test_ids_do_not_depend_on_the_order_of_keys() -> None:
    def backwards(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {key: backwards(tree[key]) for key in reversed(tree)}

    tree = LIVE.model_dump(mode="json")
    assert list(backwards(tree)) != list(tree)
    assert run_id(RunConfig.model_validate(backwards(tree))) == run_id(LIVE)
    overrides = BOTH | PARTS | {"train.lr": 0.02}
    reordered = dict(reversed(overrides.items()))
    assert run_id(apply_overrides(RunConfig(), overrides)) == run_id(
        apply_overrides(RunConfig(), reordered)
    )


def test_ids_are_equal_in_processes_with_different_hash_seeds() -> None:
    script = (
        "import json; from wsss.presets import PRESETS; from wsss.identity import *;"
        "print(json.dumps({n: [run_id(c), cam_id(c), config_id(c)] for n, c in PRESETS.items()}))"
    )
    here = {n: [run_id(c), cam_id(c), config_id(c)] for n, c in PRESETS.items()}
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)}
        printed = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        ).stdout
        assert json.loads(printed) == here


def test_an_id_is_twelve_hex_digits_and_presets_are_three_experiments() -> None:
    ids = {run_id(config) for config in PRESETS.values()}
    assert len(ids) == len(PRESETS)
    assert all(len(name) == 12 and set(name) <= set("0123456789abcdef") for name in ids)


# Overrides


def test_overrides_replace_the_named_settings_and_no_other() -> None:
    changed = apply_overrides(
        RunConfig(), {"train.lr": 0.02, "rng_seed": 7, "views.enhanced": True}
    )
    expected = RunConfig().flat() | {"train.lr": 0.02, "rng_seed": 7, "views.enhanced": True}
    assert changed.flat() == expected
    assert RunConfig().train.lr == 0.1


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("transfer.lamda_s", "transfer.lambda_s"),
        ("transfer.lambda_b", "transfer.lambda_bs"),
        ("network.backbon", "network.backbone"),
        ("train.Lr", "train.lr"),
        ("network.chanel_attention", "network.channel_attention"),
        ("seed", "rng_seed"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(key: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RunConfig(), {key: 1})
    assert str(caught.value) == f"unknown setting {key!r}; did you mean {nearest}?"


def test_a_setting_like_no_other_is_refused_with_those_of_its_section_or_the_sections() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RunConfig(), {"xyz": 1})
    assert "known: data.*, network.*, views.*," in str(caught.value)
    assert "rng_seed, repeat; give 'train' to see those of train" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RunConfig(), {"train": 1})
    expected = ", ".join(name for name in RunConfig().flat() if name.startswith("train."))
    assert str(caught.value) == f"unknown setting 'train'; known: {expected}"


@pytest.mark.parametrize("key", ["train", "transfer", "train.lr.x", "", "."])
def test_a_section_is_not_a_setting(key: str) -> None:
    with pytest.raises(ConfigError, match="unknown setting"):
        apply_overrides(RunConfig(), {key: {}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", 0),
        ("train.epochs", 2.5),
        ("train.lr", -1),
        ("train.lr", float("nan")),
        ("train.lr", float("inf")),
        ("train.batch_size", "many"),
        ("views.reading", "gamma"),
        ("network.backbone", "vgg16"),
        ("network.weights", "sha256:12"),
        ("network.frozen_stages", 6),
        ("labels.background_score", 1.5),
        ("labels.scales", []),
        ("labels.scales", [0.5, 0]),
        ("transfer.lambda_s", -0.1),
        ("rng_seed", -1),
        ("data.name", "../etc"),
        ("data.name", ""),
    ],
)
def test_a_value_out_of_range_is_refused_by_key_and_value(key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RunConfig(), {key: value})
    message = str(caught.value)
    assert message.startswith(key)
    assert len(message) > len(f"{key} = {value!r}: ")
    offending = value[-1] if isinstance(value, list) and value else value
    assert repr(offending) in message


def test_weights_whose_name_could_mean_two_files_are_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match=r"weights = 'imagenet': give imagenet_v1 .* imagenet_v2"):
        apply_overrides(RunConfig(), {"network.weights": "imagenet"})


def test_long_sides_in_the_wrong_order_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="min_long_side 700 is above max_long_side 640; swap"):
        apply_overrides(RunConfig(), {"train.min_long_side": 700})


def test_a_threshold_range_in_the_wrong_order_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels.*0\.8.*0\.05"):
        apply_overrides(RunConfig(), {"labels.threshold_range": (0.8, 0.05)})


def test_each_wrong_setting_is_named_on_a_line_of_its_own() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, {"train": {"lr": -1, "epochs": 0}, "views": {"gamma": 2}})
    lines = str(caught.value).splitlines()
    assert [line.split(" = ")[0] for line in lines] == ["views.gamma", "train.epochs", "train.lr"]


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().train.lr = 0.5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        ViewsConfig().enhanced = True  # type: ignore[misc]


def test_assignments_of_the_command_line_are_yaml_values() -> None:
    words = ["train.lr=0.02", "views.enhanced=true", "labels.scales=[0.5, 1]", "a = b=c"]
    expected = {"train.lr": 0.02, "views.enhanced": True, "labels.scales": [0.5, 1], "a": "b=c"}
    assert parse_assignments(words) == expected
    with pytest.raises(ConfigError, match=r"'train\.lr' has no '='; write it as train\.lr=0\.02"):
        parse_assignments(["train.lr"])
    with pytest.raises(ConfigError, match=r"'\[1' is not a YAML value"):
        parse_assignments(["labels.scales=[1"])


def test_a_configuration_file_gives_dotted_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train: {lr: 1e-2}\nviews:\n  enhanced: yes\nrng_seed: 3\n")
    config = apply_overrides(RunConfig(), read_config_file(path))
    assert (config.train.lr, config.views.enhanced, config.rng_seed) == (0.01, True, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1\n", "expected sections"),
        ("", "expected sections"),
        ("train: {lr: 1\n", "not YAML"),
        ("train: !!python/object/apply:os.getcwd []\n", "not YAML"),
        (b"\xff\xfe\xfa", "not UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_wrong_configuration_file_is_refused_by_name(
    content: str | bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        read_config_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_the_default_transfer_settings_are_those_of_the_paper() -> None:
    assert (TransferConfig().lambda_s, TransferConfig().lambda_bs) == (0.5, 0.5)
    views = ViewsConfig()
    assert (views.alpha_enhanced, views.beta_enhanced) == (1.5, 300)
    assert (views.alpha_decreased, views.beta_decreased) == (0.8, 150)
    train = RunConfig().train
    assert (train.lr, train.poly_power) == (0.1, 0.9)


def test_what_a_single_view_is_compared_with_matters_where_its_loss_does() -> None:
    def ids(**transfer: Any) -> int:
        found = {
            cam_id(
                apply_overrides(
                    RunConfig(),
                    ENHANCED
                    | {
                        f"transfer.{key}": value
                        for key, value in {**transfer, "single_view": kind}.items()
                    },
                )
            )
            for kind in ("half", "full", "merged")
        }
        return len(found)

    assert ids() == 3
    assert ids(lambda_s=0) == 2  # M^o is merged or not
    assert ids(lambda_bs=0) == 2  # L_s is whole or half
    assert ids(lambda_s=0, lambda_bs=0) == 1
