"""The association of pixels, by blocks and by the matrix, against Eq. 3 and finite differences."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.networks.parts.association import associate, by_blocks

TEMPERATURES = pytest.mark.parametrize("temperature", [None, 0.1, 0.7])


def full_matrix(unit: Tensor, values: Tensor, temperature: float | None) -> Tensor:
    """The N x N matrix as Eq. 3 writes it."""
    cosine = unit @ unit.transpose(1, 2)
    if temperature is not None:
        return torch.softmax(cosine / temperature, 2) @ values
    weights = cosine.relu()
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6) @ values


def pixels(*shape: int, rng_seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(rng_seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@TEMPERATURES
@pytest.mark.parametrize(
    "mix",
    [
        *(partial(by_blocks, block=block) for block in (1, 7, 20, 512)),
        *(partial(associate, small_map=size) for size in (0, 20)),  # by blocks, by the matrix
    ],
    ids=lambda mix: str(mix.keywords),
)
def test_20_pixels_get_the_values_and_gradients_of_the_full_matrix(
    mix: Callable[..., Tensor], temperature: float | None
) -> None:
    results = []
    for function in (mix, full_matrix):
        x, values = pixels(2, 20, 6).requires_grad_(), pixels(2, 20, 3, rng_seed=1).requires_grad_()
        mixed = function(F.normalize(x, dim=2), values, temperature=temperature)
        (mixed * pixels(2, 20, 3, rng_seed=2)).sum().backward()
        results.append((mixed, x.grad, values.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("small_map", [0, 5])
def test_a_pixel_without_features_stays_empty_and_passes_no_gradient_on(small_map: int) -> None:
    x = pixels(1, 5, 4)
    x[0, 2] = 0
    x.requires_grad_()
    mixed = associate(x, temperature=None, small_map=small_map)
    mixed.sum().backward()
    assert (mixed[0, 2] == 0).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@TEMPERATURES
@pytest.mark.parametrize("num_pixels", [20, 1100])  # a small map, three blocks
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_gives_values_and_gradients_near_those_of_fp32(
    num_pixels: int, dtype: torch.dtype, temperature: float | None
) -> None:
    results = []
    for enabled in (True, False):
        x = pixels(1, num_pixels, 32).to(dtype if enabled else torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            mixed = associate(x, temperature=temperature)
        assert mixed.dtype == torch.float32
        (mixed * pixels(1, num_pixels, 32, rng_seed=1).float()).sum().backward()
        assert x.grad is not None
        results.append((mixed, x.grad.float()))
    for first, second in zip(*results, strict=True):
        assert (first - second).norm() < 0.05 * second.norm()


def test_what_is_kept_for_the_backward_pass_grows_with_the_pixels_not_with_their_square() -> None:
    def kept(num_pixels: int) -> int:
        total = 0

        def note(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        x = pixels(1, num_pixels, 4).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            associate(x, temperature=None)
        return total

    assert kept(1600) == 2 * kept(800)
