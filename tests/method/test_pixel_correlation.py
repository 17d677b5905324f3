"""SEAM's pixel correlation and its loss: values by slow loops, and gradients."""

from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from sweeps.tables.studies import TABLES
from wsss.config import NetworkConfig
from wsss.data.loading.batches import CropBatch
from wsss.identity import cam_id
from wsss.networks.cam_net import CamNet, CamOutput
from wsss.networks.parts.pixel_correlation import Refinement, correlation_loss
from wsss.overrides import apply_overrides
from wsss.presets import TINY
from wsss.training.cam import CamStep
from wsss.training.loop import Moment

NUM_CLASSES = 4


def build(kind: str) -> CamNet:
    torch.manual_seed(0)
    network = TINY.network.model_dump() | {"pixel_correlation": kind, "correlation_channels": 8}
    return CamNet(NetworkConfig.model_validate(network), NUM_CLASSES)


def pictures(number: int = 2) -> Tensor:
    return torch.randn(number, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def features_and_output(model: CamNet) -> tuple[np.ndarray[Any, Any], CamOutput]:
    """What the classifier sees of two pictures, and what the network then says."""
    seen: list[Tensor] = []
    model.parts.register_forward_hook(lambda _module, _inputs, value: seen.append(value))
    with torch.no_grad():
        output = model(pictures())
    return seen[0].double().numpy(), output


@pytest.mark.parametrize("kind", ["off", "module", "loss", "both"])
@pytest.mark.parametrize("training", [False, True])
def test_the_refined_cam_is_the_mean_over_pixels_of_like_direction(
    kind: str, training: bool
) -> None:
    model = build(kind).train(training)
    features, output = features_and_output(model)
    weight = model.classifier.weight.detach()[:, :, 0, 0].double().numpy()
    theta = model.state_dict().get("correlation.theta.weight")
    assert (theta is not None) == (kind in ("module", "both"))
    refined_is_out, compared = theta is not None, training and kind in ("loss", "both")
    assert (output.refinement is not None) == compared
    for image in range(2):
        plain = np.einsum("kc,chw->khw", weight, features[image])
        embedded = features[image]
        if theta is not None:
            embedded = np.einsum("dc,chw->dhw", theta[:, :, 0, 0].double().numpy(), embedded)
        refined = reference.context_association(embedded, values=plain)
        assert np.abs(refined - plain).max() > 0.01 * np.abs(plain).max()
        expected = refined if refined_is_out else plain
        close(output.cams[image], expected)
        close(output.logits[image], expected.mean((1, 2)))
        if output.refinement is not None:
            close(output.refinement.plain[image], plain)
            close(output.refinement.refined[image], refined)


def close(found: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_distance_of_the_normalised_maps_without_empty_and_absent_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 3, NUM_CLASSES, 4, 5, generator=generator, dtype=torch.float64)
    pair[1, 0, 0] = -1.0  # empty after the refinement
    present = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.float64)
    compared = present.clone()
    compared[0, 0] = 0
    plain = pair[0].requires_grad_()
    refined = pair[1].requires_grad_()
    loss = correlation_loss(Refinement(plain, refined), present)
    losses = [
        reference.l1(
            *(
                reference.normalise(cams[image].detach().numpy(), compared[image].numpy())
                for cams in (plain, refined)
            ),
            compared[image].numpy(),
            "present",
        )
        for image in range(3)
    ]
    assert losses[2] == 0
    assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-12)
    loss.backward()
    assert refined.grad is None
    assert (plain.grad.abs().amax((2, 3)) > 0).equal(compared > 0)


def step_terms(kind: str, **settings: Any) -> tuple[CamNet, dict[str, Tensor]]:
    """A network, and the terms of its loss by name on two images in all views."""
    config = apply_overrides(TINY, {"network.pixel_correlation": kind, **settings})
    model = build(kind).train()
    step = CamStep(model, config)
    pixels = (40 * pictures() + 100).clamp(0, 255).to(torch.uint8)[:, :, :48]
    boxes = torch.tensor([[0, 0, 48, 48]] * 2)
    batch = CropBatch(pixels, boxes, torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]]))
    terms = step.terms(step.network, batch, step.whole(batch, Moment()))
    return model, dict(zip(step.names, terms, strict=True))


@pytest.mark.parametrize("views", [False, True])
def test_the_total_has_the_loss_under_its_weight_and_views_count_alike(views: bool) -> None:
    settings = {"views.enhanced": views, "train.lambda_pc": 3.0, "transfer.ramp": 0.0}
    for kind in ("loss", "both"):
        _, terms = step_terms(kind, **settings)
        assert terms["loss_pc"] > 0
        adjusted = terms["loss_s"] + terms["loss_bs"]
        expected = terms["loss_cls"] + 0.5 * adjusted + 3.0 * terms["loss_pc"]
        torch.testing.assert_close(terms["loss"], expected)
    for kind in ("off", "module"):
        assert "loss_pc" not in step_terms(kind, **settings)[1]


def test_the_classification_trains_theta_and_the_loss_what_is_before_the_refinement() -> None:
    model, terms = step_terms("both")
    theta, backbone = model.correlation.parameters, model.backbone.parameters
    of_theta, of_classifier, *of_backbone = torch.autograd.grad(
        terms["loss_pc"], [*theta(), model.classifier.weight, *backbone()], retain_graph=True
    )
    assert not of_theta.any()  # terms are in one tensor, hence 0 rather than None
    assert of_classifier.any()
    assert any(gradient.any() for gradient in of_backbone)
    terms["loss_cls"].backward()
    assert all(p.grad is not None and p.grad.any() for p in theta())


def test_the_affinity_does_not_train_what_it_is_embedded_from() -> None:
    model = build("module")
    features = torch.randn(1, model.parts.out_channels, 4, 4, requires_grad=True)
    assert model.correlation is not None
    refined, _ = model.correlation(features, torch.randn(1, NUM_CLASSES, 4, 4))
    refined.square().sum().backward()
    assert features.grad is None


def test_a_network_with_it_starts_from_the_same_numbers_as_one_without() -> None:
    plain = build("off").state_dict()
    for kind, own in (("loss", set()), ("module", {"correlation.theta.weight"})):
        state = build(kind).state_dict()
        assert set(state) - set(plain) == own
        assert all(torch.equal(state[name], plain[name]) for name in plain)


def test_the_study_is_four_trainings_of_which_the_first_is_the_papers_baseline() -> None:
    cells = [row.cells[0] for row in TABLES["pixel-correlation"].rows]
    configs = [apply_overrides(TINY, cell.overrides) for cell in cells]
    assert len({cam_id(config) for config in configs}) == 4
    assert cam_id(configs[0]) == cam_id(TINY)
