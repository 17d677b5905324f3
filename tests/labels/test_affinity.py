"""Affinity labels, distances, loss and training, against loops, by hand and by resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsss.config import NetworkConfig
from wsss.data.loading.crops import CropPlan, cut_labels
from wsss.data.voc import Sample, VocDataset
from wsss.networks.affinity_net import AffinityNet, neighbour_pairs, pair_distances
from wsss.segmentation_config import RandomWalkConfig
from wsss.training.affinity import (
    PairKinds,
    affinity_losses,
    affinity_training,
    build_affinity_net,
    pair_kinds,
    sgd_settings,
)
from wsss.training.loop import EpochSummary

NETWORK = NetworkConfig(backbone="resnet10_narrow", weights="none", frozen_stages=0)
CONFIG = RandomWalkConfig(
    epochs=3, batch_size=4, crop_size=48, min_long_side=48, max_long_side=80, radius=3, lr=0.1
)


@pytest.fixture(scope="module")
def masks(drawn: Path, samples: list[Sample]) -> dict[str, NDArray[np.uint8]]:
    """The drawn masks stand in for confident labels."""
    return {sample.image_id: VocDataset(drawn).mask(sample.image_id) for sample in samples}


def loop_pairs(height: int, width: int, radius: int) -> set[tuple[int, int]]:
    pixels = [(y, x) for y in range(height) for x in range(width)]
    return {
        (y * width + x, v * width + u)
        for y, x in pixels
        for v, u in pixels
        if y * width + x < v * width + u and (y - v) ** 2 + (x - u) ** 2 < radius**2
    }


# Pairs and distances


@pytest.mark.parametrize(
    ("height", "width", "radius"),
    [(5, 6, 3), (4, 4, 2), (3, 4, 9), (1, 5, 3), (6, 1, 3), (2, 2, 1)],
)
def test_the_pairs_are_those_of_a_loop_each_once(height: int, width: int, radius: int) -> None:
    pairs = neighbour_pairs(height, width, radius)
    found = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert set(found) == loop_pairs(height, width, radius)
    assert len(found) == len(set(found))


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_distances_equal_a_loop_over_the_pairs(radius: int) -> None:
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    pairs = neighbour_pairs(4, 5, radius)
    f = features.flatten(2).numpy()
    expected = [
        [np.abs(image[:, i] - image[:, j]).mean() for i, j in zip(*pairs, strict=True)]
        for image in f
    ]
    found = pair_distances(features, radius)
    assert found.shape == (2, len(pairs.first))
    np.testing.assert_allclose(found, np.array(expected).reshape(found.shape), rtol=1e-5)


@pytest.mark.parametrize("radius", [1, 2, 20])
def test_the_gradient_of_distances_equals_finite_differences(radius: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 2, 3, generator=generator, dtype=torch.double)
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda f: pair_distances(f, radius), (features,))


# Labels


def test_pair_kinds_equal_a_loop_and_unsure_pixels_teach_nothing() -> None:
    generator = np.random.default_rng(0)
    maps = generator.choice(np.array([0, 0, 1, 1, 2, 255], np.uint8), (2, 5, 6))
    pairs = neighbour_pairs(5, 6, 3)
    kinds = pair_kinds(torch.from_numpy(maps), pairs)
    for image, flat in enumerate(maps.reshape(2, -1)):
        for m, (i, j) in enumerate(zip(*pairs, strict=True)):
            a, b = int(flat[i]), int(flat[j])
            sure = a != 255 and b != 255
            expected = (sure and a == b > 0, sure and a == b == 0, sure and a != b)
            assert tuple(bool(kind[image, m]) for kind in kinds) == expected
    assert all(kind.any() for kind in kinds)


def test_the_loss_by_hand() -> None:
    # Affinities 1/2, 1/4 | 1/2 | 1/4, 1/2, and a pair that teaches nothing.
    distances = torch.tensor([[0.5, 0.25, 0.5, 0.25, 0.5, 0.1]]).log().neg()
    chosen = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]]).bool()
    losses = affinity_losses(distances, PairKinds(*chosen[:, None]), chosen.sum(1))
    ln2 = np.log(2)
    negative = (-np.log(0.75 + 1e-5) - np.log(0.5 + 1e-5)) / 2
    expected = (1.5 * ln2, ln2, negative)
    np.testing.assert_allclose(losses[1:], expected, rtol=1e-5)
    assert float(losses[0]) == pytest.approx(1.5 * ln2 / 4 + ln2 / 4 + negative / 2, rel=1e-5)


# Crops


def test_a_crop_of_labels_lies_where_that_of_the_picture_does() -> None:
    labels = torch.arange(12, dtype=torch.uint8).reshape(3, 4)
    plan = CropPlan((3, 4), (0, 0), (1, 0, 4, 4), flip=True)
    expected = [[255] * 4, [3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    assert cut_labels(labels, plan, 4).tolist() == expected
    enlarged = cut_labels(labels, CropPlan((6, 8), (2, 2), (0, 0, 2, 4), flip=False), 4)
    assert enlarged.tolist() == [[5, 5, 6, 6]] * 2 + [[255] * 4] * 2


# Network and training


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("size", [(48, 64), (33, 17), (3, 5)])
def test_the_feature_map_has_the_configured_stride(stride: int, size: tuple[int, int]) -> None:
    config = CONFIG.model_copy(update={"stride": stride})
    features = build_affinity_net(NETWORK, config).eval()(torch.zeros(1, 3, *size))
    expected = tuple(int(np.ceil(length / stride)) for length in size)
    assert tuple(features.shape[2:]) == expected
    assert features.dtype == torch.float32


def train(
    samples: list[Sample], masks: dict[str, NDArray[np.uint8]], config: RandomWalkConfig
) -> tuple[AffinityNet, list[EpochSummary]]:
    model = build_affinity_net(NETWORK, config)
    training = affinity_training(model, samples, lambda s: masks[s.image_id], config)
    return model, list(training.epochs())


def test_training_lowers_the_loss(
    samples: list[Sample], masks: dict[str, NDArray[np.uint8]]
) -> None:
    config = CONFIG.model_copy(update={"epochs": 12, "frozen_backbone": False})
    _, records = train(samples, masks, config)
    assert records[-1].means["loss"] < 0.92 * records[0].means["loss"]
    assert [record.epoch for record in records] == list(range(1, 13))
    for record in records:
        loss, foreground, background, negative, across, _ = record.means.values()
        assert loss == pytest.approx(foreground / 4 + background / 4 + negative / 2, rel=1e-5)
        assert 0 < across < 1
        # Of the backbone, a tenth of the heads'; 4 iterations an epoch, 48 in all.
        assert record.lr == pytest.approx(0.01 * (1 - (4 * record.epoch - 1) / 48) ** 0.9)


def test_training_leaves_a_frozen_backbone_alone(
    samples: list[Sample], masks: dict[str, NDArray[np.uint8]]
) -> None:
    config = CONFIG.model_copy(update={"epochs": 1})
    before = build_affinity_net(NETWORK, config)
    slow_head = config.model_copy(update={"head_lr_multiplier": 0.001})
    assert sgd_settings(slow_head).lr == pytest.approx(100)  # of the backbone, if it were trained
    model, _ = train(samples, masks, config)
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, before.backbone.state_dict()[name]), name
    assert not torch.equal(model.fuse.weight, before.fuse.weight)


def test_images_without_any_sure_pixel_train_without_nan(
    samples: list[Sample], masks: dict[str, NDArray[np.uint8]]
) -> None:
    unsure = {image_id: np.full_like(mask, 255) for image_id, mask in masks.items()}
    _, records = train(samples, unsure, CONFIG.model_copy(update={"epochs": 1}))
    assert (records[0].means["loss"], records[0].means["negative_share"]) == (0, 0)
