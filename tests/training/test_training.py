"""The training of CAMs: it says what happened, and its numbers are those of before.

That it learns is for test_known_answer.py, and for test_real_pictures.py.
"""

import copy
import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import nn

from wsss.config import RunConfig
from wsss.data.loading.batches import CropBatch
from wsss.data.voc import Sample
from wsss.method.diagnostics import pulls
from wsss.method.views import content_mask, network_inputs
from wsss.networks.cam_net import CamNet
from wsss.overrides import apply_overrides
from wsss.presets import IRN
from wsss.training.cam import PRODUCTS, CamStep, build_cam_net, cam_training, label_prior, train_cam
from wsss.training.loop import EpochSummary, Moment, Step
from wsss.training.optim import Poly, set_lr

BOTH = {"views.enhanced": True, "views.decreased": True}
K = 20
FIRST_THREE = tuple(f"backbone.stages.{index}." for index in range(3))
"""The stages that IRN keeps: the stem and the first two residual ones."""


@pytest.fixture(scope="module")
def both(small: RunConfig) -> RunConfig:
    return apply_overrides(small, BOTH)


def train(
    config: RunConfig, samples: list[Sample], **options: Any
) -> tuple[CamNet, list[EpochSummary]]:
    model = build_cam_net(config, samples, K)
    return model, list(train_cam(model, config, samples, **options))


def formula_batch(size: int = 32) -> CropBatch:
    """Four images and labels by integer arithmetic, so that no decoder or generator is involved."""
    index = torch.arange(4 * 3 * size * size).reshape(4, 3, size, size)
    pixels = (index * 37 + (index // size) * 101 + (index // size**2) * 53) % 256
    boxes = torch.tensor([[0, 0, size, size], [0, 0, size, size - 5], [3, 0, size, size]] * 2)[:4]
    targets = torch.zeros(4, 5)
    targets[[0, 1, 1, 2, 3, 3], [0, 1, 3, 2, 0, 4]] = 1
    return CropBatch((pixels * content_mask(boxes, size)).to(torch.uint8), boxes, targets)


def make_step(config: RunConfig) -> tuple[CamNet, torch.optim.Optimizer, Step]:
    torch.manual_seed(0)
    model = CamNet(config.network, 5).train()
    step = CamStep(model, config)
    return model, step.optimizer, step


def test_a_record_holds_what_the_epoch_came_to(both: RunConfig, samples: list[Sample]) -> None:
    lambdas = {"transfer.lambda_s": 0.3, "transfer.lambda_bs": 0.7, "train.lambda_pc": 0.2}
    schedule = {"train.poly_power": 0.8, "train.warmup_iterations": 5}
    config = apply_overrides(both, lambdas | schedule | {"network.pixel_correlation": "loss"})
    prior = label_prior(config, samples, K)
    _, records = train(config, samples)
    assert [record.epoch for record in records] == [1, 2, 3]
    for record in records:
        stored = record.to_json()
        if record.epoch == 3:  # the ramp over the first half is over: Eq. 7
            expected = stored["loss_cls"] + 0.3 * stored["loss_s"] + 0.7 * stored["loss_bs"]
            expected += 0.2 * stored["loss_pc"]
            assert stored["loss"] == pytest.approx(expected, rel=1e-5)
        # Eq. 8 at the epoch's last iteration, of 12 in all; the tiny preset's rate is 0.2.
        risen = 0.8 if record.epoch == 1 else 1
        assert record.lr == pytest.approx(0.2 * risen * (1 - (4 * record.epoch - 1) / 12) ** 0.8)
        assert stored["prior_gap"] == pytest.approx(1 - stored["loss_cls"] / prior)
        views = ("original", "enhanced", "decreased")
        assert 0 < max(stored["area"].values()) < 1
        assert set(record.metrics()) == {
            *("epoch", "iteration", "lr", "grad_norm", "prior_gap", "collapsed"),
            *("images_per_second", "seconds"),
            *("loss", "loss_cls", "loss_s", "loss_bs", "loss_pc"),
            *(f"{what}_{view}" for what in ("dead", "area") for view in views),
            *("pull_cls", "pull_s", "pull_bs", "pull_cls_s", "pull_cls_bs", "pull_s_bs"),
        }
    training = cam_training(build_cam_net(config, samples, K), config, samples)
    step, first = training.step, next(training.loader.epoch(0))
    terms = dict(
        zip(step.names, step(first, Moment(0.0, starts_epoch=True)).tolist(), strict=False)
    )
    found = records[0].to_json()["pulls"].values()
    assert list(found) == pytest.approx(pulls([terms[name] for name in PRODUCTS]))


# Whether it learnt anything at all


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 1),
        ({"train.cls_reduction": "sum"}, 4),
        (BOTH, 1),
        ({"train.cls_reduction": "sum", "train.cls_over_views": "sum", **BOTH}, 3 * 4),
    ],
)
def test_the_prior_is_the_mean_entropy_of_the_label_frequencies_in_the_units_of_l_cls(
    small: RunConfig, samples: list[Sample], settings: dict[str, Any], factor: int
) -> None:
    four = [samples[0]._replace(labels=labels) for labels in [(0,), (0, 1), (0, 2), (0, 1)]]
    entropies = [0, math.log(2), 0.25 * math.log(4) + 0.75 * math.log(4 / 3), 0]
    found = label_prior(apply_overrides(small, settings), four, 4)
    assert found == pytest.approx(factor * sum(entropies) / 4, abs=1e-8)


# Precision and batch norm


def test_bf16_trains_with_gradients_near_those_of_fp32(both: RunConfig) -> None:
    gradients = []
    for precision in ("fp32", "bf16"):
        config = apply_overrides(
            both, {"train.precision": precision, "train.clip_norm": None, "train.lr": 1e-9}
        )
        model, _, step = make_step(config)
        assert step(formula_batch()).dtype == torch.float32
        found = [p.grad.ravel() for p in model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found))
    exact, rough = gradients
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    cosine = float(exact @ rough / exact.norm() / rough.norm())
    assert cosine > 0.9
    assert float(rough.norm() / exact.norm()) == pytest.approx(1, abs=0.1)


def test_with_trained_statistics_each_view_is_normalised_apart(both: RunConfig) -> None:
    # Forwarded apart, the original's logits do not feel what the other views look like.
    config = apply_overrides(both, {"network.batch_norm": "train"})
    model, _, step = make_step(config)
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4, 3, 32, 32))).float()
    inputs[1:] = inputs[1:].sign() * torch.tensor([0.1, 4.0]).reshape(2, 1, 1, 1, 1) + inputs[1:]
    with torch.no_grad():
        alone = model(inputs[0]).logits
        together = step.network(inputs)[0]
        swapped = step.network(inputs[[0, 2, 1]])[0]
    assert torch.allclose(together[0], alone, atol=1e-5)
    assert torch.allclose(together, swapped[[0, 2, 1]], atol=1e-5)
    assert not torch.allclose(together[1], together[2], atol=1e-3)


def test_ten_steps_of_the_preset_irn_are_those_of_irns_optimiser_and_loss() -> None:
    tiny = {"network.backbone": "resnet10_narrow", "network.weights": "none"}
    config = apply_overrides(IRN, tiny | {"train.batch_size": 4})
    model, optimizer, step = make_step(config)
    before = copy.deepcopy(model)
    twin = copy.deepcopy(model).train()
    speeds = {name: np.zeros(p.shape) for name, p in twin.named_parameters()}
    batch = formula_batch()
    inputs = network_inputs(batch.pixels, batch.boxes, config.views)[0]
    for iteration in range(10):
        rate = 0.1 * reference.poly(iteration, 10, 0.9)
        set_lr(optimizer, Poly(10, config.train.poly_power).factor(iteration))
        losses = step(batch)
        logits = twin(inputs).logits
        scores = logits.detach().double().numpy()[None]
        by_hand = reference.cross_entropy(scores, batch.targets.numpy(), "mean", "mean")
        assert losses[0].item() == pytest.approx(by_hand, rel=1e-5)
        twin.zero_grad()
        nn.functional.multilabel_soft_margin_loss(logits, batch.targets).backward()
        for name, parameter in twin.named_parameters():
            if parameter.grad is not None:
                lr = 10 * rate if name.startswith("classifier") else rate
                moved, speeds[name] = reference.irn_update(
                    parameter.detach().double().numpy(),
                    parameter.grad.double().numpy(),
                    speeds[name],
                    lr=lr,
                    decay=1e-4,
                )
                parameter.data.copy_(torch.from_numpy(moved))
    frozen = {name for name, _ in model.named_parameters() if name.startswith(FIRST_THREE)}
    for (name, found), expected, first in zip(
        model.named_parameters(), twin.parameters(), before.parameters(), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(found, first) == (name in frozen), name


# Golden losses: a refactor keeps them. Whoever changes a number here writes one line, in the change
# itself, saying what moved it. The input is integer arithmetic and every setting is pinned, so that
# neither a picture decoder nor a preset moves them; torch's generator seeds the weights.

GOLDEN_BASE: dict[str, Any] = {
    "network.backbone": "resnet10_narrow",
    "network.weights": "none",
    "network.feature_map": "fpn",
    "network.fpn_channels": 16,
    "network.batch_norm": "train",
    "train.batch_size": 4,
    "train.lr": 0.001,
    "train.head_lr_multiplier": 1.0,
    "train.momentum": "standard",
    "train.clip_norm": 1.0,
    "train.weight_decay": 1e-4,
    "network.frozen_stages": 0,
    "network.last_stage_dilation": 2,
    "transfer.l1_reduction": "present",
    "transfer.ramp": 0.0,
    "transfer.empty_maps": "compare",
    "network.atrous": "zero_is_1x1",
}
GOLDEN: dict[str, tuple[dict[str, Any], list[list[float]]]] = {
    "plain": ({}, [[0.690530, 0.690530], [0.688376, 0.688376], [0.684457, 0.684457]]),
    "frozen statistics, both views": (
        {"network.batch_norm": "frozen", **BOTH},
        [
            [0.8447462, 0.6929640, 0.1596396, 0.1439247],
            [0.8402980, 0.6929710, 0.1554071, 0.1392469],
            [0.8326133, 0.6929835, 0.1481621, 0.1310977],
        ],
    ),
    "full module, both views": (
        {
            "network.channel_attention": True,
            "network.spatial_attention": True,
            "network.multi_scale_atrous": True,
            "network.context_association": True,
            "network.atrous_channels": 16,
            "network.atrous_start": "identity",
            "network.affinity_residual": True,
            **BOTH,
        },
        [
            [0.8693513, 0.6867685, 0.1859105, 0.1792551],
            [0.8552265, 0.6867354, 0.1782831, 0.1586990],
            [0.8107892, 0.6866214, 0.1674164, 0.0809193],
        ],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_losses_are_the_golden_ones(name: str) -> None:
    overrides, expected = GOLDEN[name]
    config = apply_overrides(RunConfig(), GOLDEN_BASE | overrides)
    _, _, step = make_step(config)
    batch = formula_batch()
    terms = np.array([step(batch)[:-1].tolist() for _ in range(3)])
    num_terms = len(expected[0])
    np.testing.assert_allclose(terms[:, :num_terms], expected, rtol=1e-4)
    assert not terms[:, num_terms:4].any()  # not in use
