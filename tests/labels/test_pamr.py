"""PAMR against a loop over pixels, and its invariances."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsss.labels.refine.pamr import pamr, pamr_cams, pamr_label
from wsss.segmentation_config import PamrConfig

CPU = torch.device("cpu")
Array = NDArray[np.float64]


def slow_pamr(image: Array, masks: Array, iterations: int, dilations: tuple[int, ...]) -> Array:
    """PAMR of one image, pixel by pixel: image [C, H, W], masks [L, H, W]."""
    _, height, width = image.shape
    steps = [(d * v, d * u) for d in dilations for v in (-1, 0, 1) for u in (-1, 0, 1)]
    near = {}
    for y, x in np.ndindex(height, width):
        around = [(min(max(y + v, 0), height - 1), min(max(x + u, 0), width - 1)) for v, u in steps]
        spread = np.array([np.std([plane[at] for at in around], ddof=1) for plane in image])
        others = [at for at, step in zip(around, steps, strict=True) if step != (0, 0)]
        distances = [abs(image[:, v, u] - image[:, y, x]) for v, u in others]
        powers = [math.exp(-(each / (1e-8 + 0.1 * spread)).mean()) for each in distances]
        near[y, x] = [(*at, power / sum(powers)) for at, power in zip(others, powers, strict=True)]
    for _ in range(iterations):
        masks = np.stack(
            [
                sum(weight * masks[:, v, u] for v, u, weight in near[at])
                for at in np.ndindex(height, width)
            ],
            1,
        ).reshape(masks.shape)
    return masks


def picture(height: int, width: int, rng_seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(rng_seed).random((3, height, width)) * 255)


def masks_of(num_masks: int, height: int, width: int) -> torch.Tensor:
    scores = np.random.default_rng(7).random((num_masks, height, width))
    return torch.from_numpy(scores / scores.sum(0))


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 4), (5, 2)])
def test_result_is_that_of_the_slow_loop(dilations: tuple[int, ...]) -> None:
    image, masks = picture(6, 7), masks_of(3, 6, 7)
    found = pamr(image, masks, PamrConfig(iterations=3, dilations=dilations))
    expected = slow_pamr(image.numpy(), masks.numpy(), 3, dilations)
    assert np.allclose(found.numpy(), expected, atol=1e-10)


def test_single_precision_is_close_to_double() -> None:
    image, masks = picture(40, 50), masks_of(2, 40, 50)
    found = pamr(image.float(), masks.float(), PamrConfig())
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), pamr(image, masks, PamrConfig()), atol=1e-5)


def test_one_pixel_keeps_its_mask() -> None:
    mask = torch.tensor([[[0.25]], [[0.75]]])
    assert torch.allclose(pamr(torch.full((3, 1, 1), 7.0), mask, PamrConfig()), mask)


def blob() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """An image with a bright square, and a CAM a little off it."""
    image = np.full((40, 50, 3), 40, np.uint8)
    image[10:30, 15:35] = 220
    image += np.random.default_rng(0).integers(0, 20, image.shape).astype(np.uint8)
    cams = np.zeros((1, 40, 50), np.float32)
    cams[0, 12:32, 17:37] = 0.9
    return image, cams


def test_a_label_is_that_of_masks_with_a_background_map() -> None:
    image, cams = blob()
    background = np.full_like(cams, 0.4)
    masks = torch.from_numpy(np.concatenate([background, cams])).double()
    pixels = torch.from_numpy(image).permute(2, 0, 1).double()
    expected = pamr(pixels, masks, PamrConfig()).argmax(0).numpy() * 8
    assert (pamr_label(image, cams, (7,), 0.4, PamrConfig(), CPU) == expected).mean() > 0.999


def test_read_only_arrays_are_taken_and_left_alone() -> None:
    image, cams = blob()
    image.flags.writeable = cams.flags.writeable = False
    before, refined = cams.copy(), pamr_cams(image, cams, PamrConfig(iterations=1), CPU)
    assert 0 <= refined.min() <= refined.max() <= 1
    assert np.array_equal(cams, before)  # torch heeds no flag
