"""The networks against torchvision's own, hand-written layers and slow loops."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from small_networks import network, scramble_norms, torchvision_maps
from switches import in_pairs, switches
from torch import Tensor, nn
from torchvision import models

from wsss.config import NetworkConfig, RunConfig, Settings, TransferConfig
from wsss.gpu_check.trainings import made_up_batch
from wsss.method.views import network_inputs
from wsss.networks.backbone import build_backbone
from wsss.networks.cam_net import CamNet
from wsss.networks.parts.conv_norm import ConvNorm, batch_norms
from wsss.networks.parts.focused_unfocused import (
    ContextAssociation,
    FocusedUnfocused,
    MultiScaleAtrous,
    SpatialAttention,
    _MeanAndMaximum,
)
from wsss.overrides import apply_overrides
from wsss.presets import TINY
from wsss.training.cam import CamStep
from wsss.training.optim import build_sgd
from wsss.weights import file_digest

PART_NAMES = ("channel_attention", "spatial_attention", "multi_scale_atrous", "context_association")
ALL_PARTS = dict.fromkeys(PART_NAMES, True)


def build(config: NetworkConfig, *, rng_seed: int = 0, weights_file: Path | None = None) -> CamNet:
    torch.manual_seed(rng_seed)
    return CamNet(config, 5, weights_file=weights_file).eval()


def picture(*shape: int, rng_seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(rng_seed))


def torchvision_model(name: str, path: Path) -> nn.Module:
    model: nn.Module = models.get_model(name, weights=None)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


# Backbones


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("size", [96, 104])
def test_every_second_pixel_of_the_last_stage_is_torchvisions_own_output_at_stride_32(
    name: str, size: int, weights: dict[str, Path]
) -> None:
    """The a trous property: trading stride for dilation refines the grid and changes no value."""
    config = network(backbone=name, weights=file_digest(weights[name]), last_stage_dilation=2)
    ours = build_backbone(config, weights[name]).eval().double()
    theirs = torchvision_model(name, weights[name]).double()
    x = picture(1, 3, size, size).double()
    with torch.no_grad():
        found, expected = ours(x), torchvision_maps(theirs, x)
    for ours_at, theirs_at in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours_at, theirs_at)
    assert expected[3].std() > 1e-3
    torch.testing.assert_close(found[3][:, :, ::2, ::2], expected[3])


def undilated_resnet50() -> Any:
    """IRN's: the strides of layer4 are 1, and nothing else is changed."""
    model = models.resnet50(weights=None)
    model.layer4[0].conv2.stride = model.layer4[0].downsample[0].stride = (1, 1)
    return model


def dilated_resnet50(*last_two: bool, in_full: bool = False) -> Any:
    """Torchvision's; `in_full`: the first block of a stage has the dilation of its others."""
    model = models.resnet50(replace_stride_with_dilation=[False, *last_two])
    for block, dilation in ((model.layer3[0], 2), (model.layer4[0], 4)) if in_full else ():
        block.conv2.dilation = block.conv2.padding = (dilation, dilation)
    return model


@pytest.mark.parametrize(
    ("dilation", "options", "build_theirs"),
    [
        (1, {}, undilated_resnet50),
        (2, {}, lambda: dilated_resnet50(False, True)),
        (2, {"output_stride": 8}, lambda: dilated_resnet50(True, True)),
        (
            2,
            {"output_stride": 8, "first_block_dilation": "full"},
            lambda: dilated_resnet50(True, True, in_full=True),
        ),
    ],
)
def test_resnet50_is_irns_undilated_and_torchvisions_dilated_but_for_first_blocks_in_full(
    dilation: int, options: dict[str, Any], build_theirs: Callable[[], Any]
) -> None:
    torch.manual_seed(0)
    theirs = build_theirs().eval()
    torch.manual_seed(0)
    config = network(backbone="resnet50", last_stage_dilation=dilation)
    ours = build_backbone(config, **options).eval()
    scramble_norms(ours)
    scramble_norms(theirs)
    x = picture(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(ours(x), torchvision_maps(theirs, x), strict=True):
            assert expected.std() > 1e-3
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_every_trainable_parameter_trains_once_at_the_rate_of_its_place() -> None:
    config = apply_overrides(
        RunConfig(),
        {f"network.{name}": True for name in PART_NAMES}
        | {
            "network.backbone": "resnet10_narrow",
            "network.weights": "none",
            "network.pixel_correlation": "module",
            "train.lr": 0.1,
            "train.head_lr_multiplier": 10.0,
            "train.pyramid_lr_multiplier": 2.0,
            "train.parts_lr_multiplier": 3.0,
        },
    )
    model = CamNet(config.network, 5)
    found = {
        id(parameter): group["lr"]
        for group in build_sgd(model.parameter_groups(), config.train).param_groups
        for parameter in group["params"]
    }
    rates = {"backbone": 0.1, "neck": 0.2, "parts": 0.3, "classifier": 1.0, "correlation": 1.0}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(found) == len(trained)
    assert {name.partition(".")[0] for name in trained} == set(rates)
    for name, parameter in trained.items():
        assert found[id(parameter)] == pytest.approx(rates[name.partition(".")[0]]), name


# Convolution and batch norm


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_folded_convolution_equals_convolution_and_norm_in_value_and_gradient(
    bias: bool, groups: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3, stride=2, padding=2, dilation=2, groups=groups, bias=bias)
    norm = nn.BatchNorm2d(8)
    scramble_norms(norm)
    pair = nn.Sequential(conv, norm).double().eval()
    folded = ConvNorm(conv, norm).eval()
    weight = picture(2, 8, 5, 5, rng_seed=3).double()
    results = []
    for module in (pair, folded):
        x = picture(2, 4, 9, 9).double().requires_grad_()
        module.zero_grad()
        value = module(x)
        (value * weight).sum().backward()
        results.append([value, x.grad, *(p.grad.clone() for p in pair.parameters())])
    for expected, found in zip(*results, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected)


def test_frozen_norms_stay_frozen_in_training_mode_and_others_do_not() -> None:
    for mode in ("frozen", "train"):
        model = build(network(batch_norm=mode, multi_scale_atrous=True)).train()
        before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
        model(picture(2, 3, 64, 64))
        after = model.state_dict()
        assert len(before) > 20
        for key, tensor in before.items():
            assert torch.equal(tensor, after[key]) == (mode == "frozen")
        assert all(norm.training == (mode == "train") for norm in batch_norms(model))
        assert not any(norm.training for norm in batch_norms(model.eval()))


def test_calibration_gives_every_new_norm_zero_mean_and_unit_variance_on_its_batch() -> None:
    model = build(network(multi_scale_atrous=True, feature_map="fpn")).train()
    x = 2 + 3 * picture(8, 3, 96, 96)
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvNorm):
            module.register_forward_hook(
                lambda _module, _inputs, value, name=name: seen.update({name: value.clone()})
            )
    model.calibrate(x)
    assert not any(norm.training for norm in batch_norms(model))
    with torch.no_grad():
        model(x)
    assert len(seen) == len(list(batch_norms(model))) > 12
    for value in seen.values():
        assert value.mean((0, 2, 3)).abs().max() < 0.05
        assert (value.var((0, 2, 3), correction=0) - 1).abs().max() < 0.05


def test_calibration_leaves_pretrained_norms_and_all_weights_alone(
    weights: dict[str, Path],
) -> None:
    path = weights["mobilenet_v2"]
    config = network(backbone="mobilenet_v2", weights=file_digest(path), multi_scale_atrous=True)
    model = build(config, weights_file=path).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.calibrate(picture(2, 3, 64, 64))
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {
        f"parts.multi_scale_atrous.layers.{layer}.0.norm.{name}"
        for layer in range(4)
        for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert {norm.momentum for norm in batch_norms(model)} == {0.1}


# Parts


def test_a_part_that_is_off_does_not_exist() -> None:
    def keys(**settings: Any) -> set[str]:
        return set(build(network(**settings)).state_dict())

    plain = keys()
    assert all(key.startswith(("backbone.", "classifier.")) for key in plain)
    assert keys(context_association=True) == plain  # it has no parameters
    for name in PART_NAMES[:3]:
        added = keys(**{name: True}) - plain
        assert added
        assert all(key.startswith(f"parts.{name}.") for key in added)
    fpn = keys(feature_map="fpn") - plain
    assert fpn
    assert all(key.startswith("neck.fpn.") for key in fpn)
    assert list(build(network()).parts.children()) == []
    assert list(dict(build(network(**ALL_PARTS)).parts.named_children())) == list(PART_NAMES)


@pytest.mark.parametrize("feature_map", ["plain", "fpn", "fpn_p3"])
def test_cams_are_class_weights_times_features_and_logits_their_mean(feature_map: str) -> None:
    model = build(network(feature_map=feature_map, spatial_attention=True)).double()
    seen: list[Tensor] = []
    model.parts.register_forward_hook(lambda _module, _inputs, value: seen.append(value))
    with torch.no_grad():
        logits, cams, _ = model(picture(2, 3, 64, 48).double())
    stride = 8 if feature_map == "fpn_p3" else 16
    assert cams.shape == (2, 5, 64 // stride, 48 // stride)
    assert cams.dtype == torch.float32
    weight = model.classifier.weight.detach()[:, :, 0, 0].numpy()
    for image in range(2):
        expected = reference.class_activation(weight, seen[0][image].numpy())
        np.testing.assert_allclose(cams[image], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(logits[image], expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ratio", "squeezed"), [(8, 3), (64, 1)])
def test_channel_attention_squeezes_by_its_ratio(ratio: int, squeezed: int) -> None:
    part = FocusedUnfocused(24, network(channel_attention=True, se_ratio=ratio)).channel_attention
    assert part is not None
    assert part.fc1.out_channels == squeezed


def test_spatial_attention_equals_the_loop() -> None:
    torch.manual_seed(0)
    part = SpatialAttention().double()
    x = picture(2, 6, 5, 9).double()
    for image in range(2):
        expected = reference.spatial_attention(
            x[image].numpy(), part.conv.weight.detach()[0].numpy(), part.conv.bias.item()
        )
        np.testing.assert_allclose(part(x)[image].detach(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("atrous", "reach"),
    # Series: the dilations add up, 0 + 1 + 2 + 3 or 1 + 2 + 3 + 4; parallel: the widest counts.
    [("zero_is_1x1", 6), ("one_to_four", 10), ("parallel", 3)],
)
@pytest.mark.parametrize("start", ["random", "identity"])
def test_the_atrous_stack_reaches_as_far_as_its_dilations_say(
    atrous: str, reach: int, start: str
) -> None:
    part = MultiScaleAtrous(4, network(atrous=atrous, atrous_start=start)).eval()
    for parameter in part.parameters():
        parameter.data.fill_(0.1)  # all positive: ReLU is open and no path cancels another
    x = torch.ones(1, 4, 25, 25, requires_grad=True)
    mixed = part(x)
    assert mixed.shape == (1, 4 if start == "identity" else 16, 25, 25)
    assert part.out_channels == mixed.shape[1]
    mixed[0, :, 12, 12].sum().backward()
    touched = x.grad[0].abs().sum(0).nonzero()
    assert touched.min(0).values.tolist() == [12 - reach, 12 - reach]
    assert touched.max(0).values.tolist() == [12 + reach, 12 + reach]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"affinity_residual": True},
        {"affinity": "softmax", "affinity_temperature": 0.5},
        {"affinity": "softmax", "affinity_temperature": 0.2, "affinity_residual": True},
        {"association_values": "input"},
        {"association_values": "input", "affinity_residual": True},
    ],
)
def test_context_association_equals_eq3_pixel_by_pixel(settings: dict[str, Any]) -> None:
    part = ContextAssociation(network(**settings))
    x, module_input = picture(1, 6, 3, 4).double(), picture(1, 2, 3, 4, rng_seed=1).double()
    x[0, :, 1, 2] = 0.0  # a pixel without features
    expected = reference.context_association(
        x[0].numpy(),
        values=module_input[0].numpy() if "association_values" in settings else None,
        temperature=settings.get("affinity_temperature"),
        residual=settings.get("affinity_residual", False),
    )
    np.testing.assert_allclose(part(x, module_input)[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("placement", ["series", "parallel", "remaining"])
def test_the_module_is_placed_as_its_equation_says(placement: str) -> None:
    torch.manual_seed(0)
    parts: Any = FocusedUnfocused(8, network(**ALL_PARTS, module_placement=placement)).eval()
    x = picture(2, 8, 6, 5)

    def unfocused(given: Tensor) -> Tensor:
        return parts.context_association(parts.multi_scale_atrous(given), x)

    with torch.no_grad():
        focused = parts.spatial_attention(parts.channel_attention(x))
        expected = {
            "series": lambda: unfocused(focused),
            "parallel": lambda: torch.cat([focused, unfocused(x)], 1),
            "remaining": lambda: torch.cat([focused, unfocused(x - focused)], 1),
        }[placement]()
        found = parts(x)
        first, second = (
            FocusedUnfocused(8, network(**{part: True}, module_placement=placement))
            for part in ("spatial_attention", "context_association")
        )
        assert torch.equal(first(x), first.spatial_attention(x))
        assert torch.equal(second(x), second.context_association(x, x))
    assert torch.equal(found, expected)
    assert found.shape[1] == parts.out_channels


@pytest.mark.parametrize("atrous", ["zero_is_1x1", "one_to_four", "parallel"])
def test_an_identity_start_gives_exactly_the_output_of_the_plain_network(atrous: str) -> None:
    plain = build(network(channel_attention=True))
    started = build(
        network(
            channel_attention=True, multi_scale_atrous=True, atrous=atrous, atrous_start="identity"
        ),
        rng_seed=1,
    )
    loaded = started.load_state_dict(plain.state_dict(), strict=False)
    assert loaded.unexpected_keys == []
    assert all(key.startswith("parts.multi_scale_atrous.") for key in loaded.missing_keys)
    x = picture(2, 3, 64, 64)
    with torch.no_grad():
        expected, found = plain(x), started(x)
        started.parts.multi_scale_atrous.scale.fill_(1.0)
        moved = started(x)
    assert torch.equal(found.cams, expected.cams)
    assert torch.equal(found.logits, expected.logits)
    assert not torch.allclose(moved.cams, expected.cams)


# Every configuration trains


def rows(section: str, model: type[Settings], *known: str) -> list[dict[str, Any]]:
    """Return settings of a section of RunConfig that try its switches in all pairs."""
    pairs = in_pairs(switches(model, without=known))
    return [{f"{section}.{name}": value for name, value in row.items()} for row in pairs]


ROWS = [
    {"train.precision": "bf16"},
    *rows("network", NetworkConfig, "backbone", "weights"),
    *rows("transfer", TransferConfig),
]


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_every_trainable_parameter_gets_a_gradient_under_every_switch(number: int) -> None:
    full = {f"network.{name}": True for name in PART_NAMES} | {"transfer.ramp": 0.0}
    full |= {"views.enhanced": True, "views.decreased": True}
    config = apply_overrides(TINY, full | ROWS[number])
    batch = made_up_batch(2, 48)
    torch.manual_seed(0)
    model = CamNet(config.network, 20)
    if model.frozen_norm:
        model.calibrate(network_inputs(batch.pixels, batch.boxes, config.views)[0])
    model.train()
    step = CamStep(model, config)
    largest = dict.fromkeys((k for k, p in model.named_parameters() if p.requires_grad), 0.0)
    # Behind the zero scale of an identity start, a gradient arrives with the second step.
    for _ in range(2 if config.network.atrous_start == "identity" else 1):
        assert step(batch).isfinite().all()
        for key in largest:
            gradient = model.get_parameter(key).grad
            assert gradient is not None, key
            assert gradient.isfinite().all(), key
            largest[key] = max(largest[key], gradient.abs().max().item())
    assert [key for key, value in largest.items() if value == 0] == []
    assert len(largest) > 10


def test_mean_and_maximum_have_the_gradients_of_torch_also_where_maxima_are_equal() -> None:
    x = picture(2, 5, 4, 3).double().round()  # whole numbers: many are equal
    weights = picture(2, 2, 4, 3).double()
    gradients = []
    for pool in (
        _MeanAndMaximum.apply,
        lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1),
    ):
        leaf = x.clone().requires_grad_()
        pooled = pool(leaf)
        (pooled * weights).sum().backward()
        gradients.append((pooled, leaf.grad))
    assert ((x == x.amax(1, keepdim=True)).sum(1) > 1).any()
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)
