"""The random walk: sparse products against dense matrix powers and a loop over pixel pairs."""

import numpy as np
import pytest
import torch

from wsss.config import NetworkConfig
from wsss.data.voc import Sample
from wsss.labels.infer import ImageCams
from wsss.labels.refine.random_walk import random_walk, transition, walk_cams, walk_labels
from wsss.networks.affinity_net import AffinityNet
from wsss.segmentation_config import RandomWalkConfig


def random_features(channels: int, height: int, width: int, rng_seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(rng_seed)
    return torch.from_numpy(rng.standard_normal((channels, height, width), dtype=np.float32))


def dense_transition(features: torch.Tensor, radius: int, beta: float) -> np.ndarray:
    """Every pair of pixels in two loops, sharpened as a power of the affinity, in double."""
    f = features.double().numpy()
    _, height, width = f.shape
    matrix = np.zeros((height * width, height * width))
    for i in range(height * width):
        for j in range(height * width):
            (yi, xi), (yj, xj) = divmod(i, width), divmod(j, width)
            if i == j or (yi - yj) ** 2 + (xi - xj) ** 2 < radius**2:
                affinity = np.exp(-np.abs(f[:, yi, xi] - f[:, yj, xj]).mean())
                matrix[i, j] = affinity**beta
    return matrix / matrix.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("height", "width", "radius", "beta"),
    [
        (5, 7, 3, 4.0),
        (6, 4, 2, 0.5),
        (4, 5, 50, 8.0),
        (1, 6, 3, 2.0),
        (3, 1, 2, 2.0),
        (1, 1, 5, 8.0),
        (2, 3, 1, 8.0),
    ],
    ids=[
        *("small", "next neighbours", "radius beyond the map", "one row", "one column"),
        *("one pixel", "no neighbour"),
    ],
)
def test_the_transition_equals_a_loop_over_all_pairs(
    height: int, width: int, radius: int, beta: float
) -> None:
    features = random_features(3, height, width)
    expected = dense_transition(features, radius, beta)
    found = transition(features, radius, beta)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-5, atol=1e-8)
    assert found.nnz == np.count_nonzero(expected)
    assert found.dtype == np.float32


@pytest.mark.parametrize("log_steps", [0, 1, 3, 6])
@pytest.mark.parametrize("beta", [1.0, 8.0])
def test_the_walk_equals_the_dense_power_of_the_matrix(log_steps: int, beta: float) -> None:
    features = random_features(4, 6, 7)
    cams = np.random.default_rng(1).random((3, 6, 7), dtype=np.float32)
    dense = np.linalg.matrix_power(dense_transition(features, 3, beta), 2**log_steps)
    expected = (dense @ cams.reshape(3, -1).T).T.reshape(cams.shape)
    found = random_walk(cams, transition(features, 3, beta), log_steps)
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert found.dtype == np.float32


@pytest.mark.parametrize("scale", ["kept", "maximum"])
def test_walked_cams_are_of_image_size_at_the_configured_scale(scale: str) -> None:
    cams = np.random.default_rng(0).random((3, 42, 56), dtype=np.float32)  # blocks of 7 x 8 pixels
    cams[2] = 0  # without activation
    features = random_features(4, 6, 7)
    config = RandomWalkConfig(radius=3, beta=2.0, log_steps=3, walked_scale=scale)
    walked = walk_cams(cams, features, config)
    low = cams.reshape(3, 6, 7, 7, 8).mean((2, 4)).reshape(3, -1)
    dense = np.linalg.matrix_power(dense_transition(features, 3, 2.0), 8)
    peak = (low @ dense.T).max(1)
    assert walked.shape == cams.shape
    assert walked.dtype == np.float32
    assert walked.min() >= 0
    expected = peak if scale == "kept" else [1, 1, 0]
    np.testing.assert_allclose(walked.max((1, 2)), expected, rtol=0.02)  # no pixel hits the centre


def test_without_a_step_to_others_the_walk_is_a_resize() -> None:
    # Radius 1 holds no neighbour. Blocks of 4 x 4 equal pixels: their mean at stride 4 is exact.
    blocks = np.array([[[1.0, 0.0], [0.5, 0.25]]], dtype=np.float32)
    cams = blocks.repeat(4, 1).repeat(4, 2)
    walked = walk_cams(cams, torch.zeros(1, 2, 2), RandomWalkConfig(radius=1, log_steps=3))
    np.testing.assert_allclose(walked[0, [0, 0, 7, 7], [0, 7, 0, 7]], [1, 0, 0.5, 0.25], atol=1e-4)


def test_walked_labels_are_cams_of_the_same_images(smooth: list[Sample]) -> None:
    torch.manual_seed(0)
    config = RandomWalkConfig(log_steps=2)
    model = AffinityNet(NetworkConfig(backbone="resnet10_narrow", weights="none"), config)
    rng, images = np.random.default_rng(0), []
    for sample, size in zip(smooth, ((38, 53), (47, 34)), strict=True):
        images.append(ImageCams(sample, rng.random((len(sample.labels), *size), np.float32)))
    walked = list(walk_labels(model, images, config, device=torch.device("cpu")))
    assert [image.sample for image in walked] == smooth
    for found, given in zip(walked, images, strict=True):
        assert found.cams.shape == given.cams.shape
        assert 0 <= found.cams.min() < found.cams.max() <= 1
        assert not np.allclose(found.cams, given.cams, atol=0.1)
