"""The equations of the paper against slow loops and hand-computed values."""

from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from wsss.config import TrainConfig, TransferConfig, ViewsConfig
from wsss.method.cam import background_map, belongs_to, normalise_cam
from wsss.method.losses import cam_losses, transfer_weight
from wsss.method.views import network_inputs
from wsss.training.optim import Poly, build_sgd

READINGS = (
    "beta_tenth",
    "literal_clip",
    "literal_unclipped",
    "wrap",
    "beta_thousandth",
    "decreased_negative",
    "about_mean",
    "slider",
)
VIEWS = {
    "enhanced": ViewsConfig(enhanced=True),
    "decreased": ViewsConfig(decreased=True),
    "both": ViewsConfig(enhanced=True, decreased=True),
}
ALL_VIEWS = {"none": ViewsConfig()} | VIEWS
HOW: tuple[dict[str, Any], ...] = (
    {},
    {"progress": 0.2},
    {"over_classes": "sum"},
    {"over_views": "sum"},
    {"over_classes": "sum", "over_views": "sum"},
)
# One change each from the defaults, and a few together.
TRANSFERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "lambdas": {"lambda_s": 0.3, "lambda_bs": 1.7},
    "lambdas_zero": {"lambda_s": 0, "lambda_bs": 0},
    "prose": {"similarity_pairs": "prose"},
    "raw": {"cam_activation": "raw"},
    "min_max": {"cam_activation": "min_max"},
    "sigmoid": {"cam_activation": "sigmoid"},
    "present": {"l1_reduction": "present"},
    "sum": {"l1_reduction": "sum"},
    "flow": {"merged_gradient": "flow"},
    "threshold": {"belongs": "threshold"},
    "score": {"belongs_score": 0.45},
    "half_of_sigmoid": {"half_of": "sigmoid"},
    "fixed_score": {"background_map": "fixed_score", "belongs_score": 0.375},
    "compare": {"empty_maps": "compare"},
    "full": {"single_view": "full"},
    "merged": {"single_view": "merged", "belongs_score": 0.3},
    "peaks": {"background_map": "peaks"},
    "background": {"background_map": "background"},
    "prose_flow_threshold": {
        "similarity_pairs": "prose",
        "merged_gradient": "flow",
        "belongs": "threshold",
        "belongs_score": 0.4,
        "half_of": "sigmoid",
    },
    "raw_fixed_sum": {
        "cam_activation": "raw",
        "background_map": "fixed_score",
        "l1_reduction": "sum",
        "belongs_score": 0.25,
    },
    "sigmoid_prose_present": {
        "cam_activation": "sigmoid",
        "similarity_pairs": "prose",
        "l1_reduction": "present",
        "half_of": "sigmoid",
        "belongs": "threshold",
    },
}
PRESENT = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)


def random_cams(num_views: int, *, rng_seed: int = 0) -> Tensor:
    """Raw CAMs [V, 3, 4, 5, 3] whose views resemble each other, as those of a network do."""
    generator = torch.Generator().manual_seed(rng_seed)
    shared = torch.randn(1, 3, 4, 5, 3, generator=generator, dtype=torch.float64)
    own = torch.randn(num_views, 3, 4, 5, 3, generator=generator, dtype=torch.float64)
    return shared + 0.6 * own


def random_batch(*, rng_seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pixels [2, 3, 8, 8] and boxes: one image padded on every side, one that fills its crop.

    The padding holds pixels, too, which nobody may see.
    """
    generator = torch.Generator().manual_seed(rng_seed)
    pixels = torch.randint(0, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return pixels, torch.tensor([[1, 2, 7, 5], [0, 0, 8, 8]])


# Eq. 2


@pytest.mark.parametrize("chosen", ALL_VIEWS)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("padding", ["before", "after"])
def test_network_inputs_equal_eq2_pixel_by_pixel_in_each_reading(
    chosen: str, reading: Any, padding: Any
) -> None:
    views = ALL_VIEWS[chosen].model_copy(update={"reading": reading, "padding": padding})
    pixels, boxes = random_batch()
    numbers = {"enhanced": (1.5, 300.0), "decreased": (0.8, 150.0)}
    expected = [
        [
            reference.network_input(image.numpy(), box.tolist(), change, reading, padding)
            for image, box in zip(pixels, boxes, strict=True)
        ]
        for change in (None, *(numbers[name] for name in views.names))
    ]
    np.testing.assert_allclose(network_inputs(pixels, boxes, views), expected, atol=2e-5)


# CAM arithmetic


def test_belonging_is_strict_and_ties_go_to_background_then_to_the_lower_class() -> None:
    # Three classes, five pixels: at the score, tie above it, below it, class 2 wins, all zero.
    cam = torch.tensor([[0.25, 0.5, 0.1, 0.3, 0], [0, 0.5, 0.2, 0.4, 0], [0, 0.5, 0, 0.75, 0]])
    cam, present = cam[None, :, None], torch.ones(1, 3)
    by_argmax = belongs_to(cam, present, 0.25, "argmax")[0, :, 0]
    by_threshold = belongs_to(cam, present, 0.25, "threshold")[0, :, 0]
    assert by_argmax.int().tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert by_threshold.int().tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 1, 0], [0, 1, 0, 1, 0]]


def test_the_random_cams_reach_every_case_of_the_merge_rule() -> None:
    enhanced, decreased = (normalise_cam(cam, PRESENT) for cam in random_cams(2))
    in_e, in_d = (belongs_to(cam, PRESENT, 0.3, "argmax") for cam in (enhanced, decreased))
    sure = torch.maximum(enhanced, decreased) > 0.5
    for case in (in_e & in_d, (in_e ^ in_d) & sure, (in_e ^ in_d) & ~sure, ~in_e & ~in_d & sure):
        assert case.sum() >= 3


def test_the_background_map_keeps_the_strongest_class_alone() -> None:
    cam = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.125, 0.25]])[None, :, None]  # [1, 2, 1, 3]
    present = torch.ones(1, 2)
    by_max = background_map(cam, present, 0.25, "one_minus_max")[0, :, 0]
    by_score = background_map(cam, present, 0.25, "fixed_score")[0, :, 0]
    assert by_max.tolist() == [[0.5, 0.25, 0.75], [0, 0.75, 0], [0.5, 0, 0.25]]
    assert by_score.tolist() == [[0, 0, 0.25], [0, 0.75, 0], [0.5, 0, 0]]  # a tie is background


# Eq. 4 to 8


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("views", ALL_VIEWS)
@pytest.mark.parametrize("name", TRANSFERS)
def test_the_total_loss_and_its_terms_equal_the_loop(name: str, views: str, empty: bool) -> None:
    transfer = TransferConfig.model_validate(TRANSFERS[name])
    cams = random_cams(1 + len(ALL_VIEWS[views].names), rng_seed=2)
    cams[:, 2, 0] += 4  # no value is 0 after a ReLU
    if empty:
        cams[-1, 0, 0] = -cams[-1, 0, 0].abs()  # in one view alone
        cams[:, 1, 1] = -cams[:, 1, 1].abs()  # in all views: this image has no other class
    logits = 3 * cams.mean((3, 4))
    for how in HOW:
        found = cam_losses(logits, cams, PRESENT, ALL_VIEWS[views], transfer, **how)
        expected = reference.total_loss(
            logits.numpy(), cams.numpy(), PRESENT.numpy(), transfer, **how
        )
        assert [None if term is None else float(term) for term in found] == [
            None if value is None else pytest.approx(value, rel=1e-12, abs=1e-15)
            for value in expected
        ]


def test_an_empty_map_spoils_no_other_view_when_it_is_skipped() -> None:
    for empty_maps, spoils in (("skip", False), ("compare", True)):
        cams = random_cams(3, rng_seed=2)
        cams[1, 0, 0] = -1.0
        cams.requires_grad_()
        transfer = TransferConfig.model_validate({"empty_maps": empty_maps})
        losses = cam_losses(cams.mean((3, 4)), cams, PRESENT, VIEWS["both"], transfer)
        assert losses.similarity is not None
        losses.similarity.backward()
        assert cams.grad is not None
        assert bool(cams.grad[0, 0, 0].any()) == spoils
        assert cams.grad[0, 0, 2].any()  # the image's other class is compared


@pytest.mark.parametrize(
    ("start", "ramp", "weights"),
    [
        (0.0, 0.5, [0, 0.2, 0.5, 1, 1, 1]),
        (0.0, 0.0, [1, 1, 1, 1, 1, 1]),
        (0.5, 0.0, [0, 0, 0, 1, 1, 1]),
        (0.5, 0.5, [0, 0, 0, 0, 0.5, 1]),
        (1.0, 0.5, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_the_lambdas_rise_over_the_training_as_start_and_ramp_say(
    start: float, ramp: float, weights: list[float]
) -> None:
    transfer = TransferConfig(start=start, ramp=ramp)
    points = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    assert [transfer_weight(p, transfer) for p in points] == pytest.approx(weights)


@pytest.mark.parametrize("num_maps", [1, 2, 4])
def test_a_number_of_maps_that_does_not_fit_the_views_is_refused(num_maps: int) -> None:
    cams = random_cams(num_maps)
    with pytest.raises(ValueError, match=rf"{num_maps} maps .*'enhanced', 'decreased'"):
        cam_losses(cams.mean((3, 4)), cams, PRESENT, VIEWS["both"], TransferConfig())


@pytest.mark.parametrize("views", ["enhanced", "both"])
@pytest.mark.parametrize(
    "name",
    ["defaults", "prose", "raw", "sigmoid", "sum", "flow", "fixed_score", "prose_flow_threshold"],
)
def test_the_gradient_equals_finite_differences_of_the_loop(name: str, views: str) -> None:
    transfer = TransferConfig.model_validate(TRANSFERS[name])
    cams = random_cams(1 + len(VIEWS[views].names), rng_seed=5).requires_grad_()
    logits = cams.mean((3, 4))
    cam_losses(logits, cams, PRESENT, VIEWS[views], transfer).total.backward()
    assert cams.grad is not None
    start = cams.detach().numpy()
    fixed = None
    if transfer.merged_gradient == "stop":
        fixed = [reference.merge(start[1:, b], PRESENT[b].numpy(), transfer) for b in range(3)]

    def loss(values: np.ndarray) -> float:
        return reference.total_loss(
            values.mean((3, 4)), values, PRESENT.numpy(), transfer, merged=fixed
        )[0]

    places = np.random.default_rng(0).integers(0, start.shape, (12, 5)).tolist()
    highest = np.unravel_index(start[1, 0, 0].argmax(), start[1, 0, 0].shape)
    places += [[view, 0, 0, *highest] for view in range(len(start))]
    for place in map(tuple, places):
        step = np.zeros_like(start)
        step[place] = 1e-6
        slope = (loss(start + step) - loss(start - step)) / 2e-6
        assert float(cams.grad[place]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_the_rate_follows_the_poly_schedule_of_eq8() -> None:
    for iteration in (0, 1, 50, 99):
        expected = reference.poly(iteration, 100, 0.9)
        assert Poly(100, 0.9).factor(iteration) == pytest.approx(expected, rel=1e-12)
        in_steps = Poly(100, 0.9, hold=10).factor(iteration)
        assert in_steps == pytest.approx(reference.poly(iteration // 10 * 10, 100, 0.9))
    assert Poly(100, 0.9).factor(0) == 1
    assert Poly(100, 2).factor(75) == pytest.approx(1 / 16)


def test_warm_up_rises_linearly_and_joins_the_poly_schedule() -> None:
    schedule = Poly(100, 0.9, warmup=4)
    rising = [schedule.factor(i) / reference.poly(i, 100, 0.9) for i in range(6)]
    assert rising == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize(("momentum", "expected"), [("standard", 0.9), ("legacy", 1e-4)])
def test_the_momentum_is_that_of_its_reading(momentum: str, expected: float) -> None:
    train = TrainConfig.model_validate({"momentum": momentum, "weight_decay": 1e-4})
    (group,) = build_sgd({"head": [torch.nn.Parameter(torch.ones(1))]}, train).param_groups
    assert (group["momentum"], group["weight_decay"]) == (expected, 1e-4)
