"""Multi-scale inference against a loop, and pseudo-labels against hand-written pixels."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from PIL import Image

from wsss.config import LabelsConfig, NetworkConfig
from wsss.data.voc import Sample
from wsss.labels.infer import infer_cams
from wsss.labels.pseudo_label import pseudo_label
from wsss.networks.cam_net import CamNet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> CamNet:
    torch.manual_seed(0)
    return CamNet(
        NetworkConfig(
            backbone="resnet10_narrow", weights="none", fpn_channels=16, spatial_attention=True
        ),
        6,
    ).eval()


def raw_cams(model: CamNet, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        cams: torch.Tensor = model(torch.from_numpy(x).float()[None]).cams[0]
    return cams.double().numpy()


@pytest.mark.parametrize(
    ("scales", "flip", "irn"),
    [
        ((1.0,), False, True),
        ((0.5, 1.0, 1.5), True, True),
        ((0.5, 1.0, 1.5), False, False),
        ((0.7, 2.0), True, False),
    ],
)
def test_multi_scale_cams_equal_the_loop(
    model: CamNet, smooth: list[Sample], scales: tuple[float, ...], flip: bool, irn: bool
) -> None:
    other = {} if irn else {"resize": "bilinear", "upsampling": "direct"}
    labels = LabelsConfig.model_validate({"scales": scales, "flip": flip} | other)
    theirs: dict[str, Any] = {} if irn else {"resize": "bilinear", "multiple": 1}
    found = list(infer_cams(model.train(), smooth, labels, device=CPU))
    assert not model.training
    assert [cams.sample for cams in found] == smooth
    for sample, (_, cams) in zip(smooth, found, strict=True):
        with Image.open(sample.image_path) as image:
            expected = reference.multi_scale_cams(
                lambda x: raw_cams(model, x), image, sample.labels, scales, flip=flip, **theirs
            )
            assert cams.shape == (len(sample.labels), image.height, image.width)
        assert cams.dtype == np.float32
        np.testing.assert_allclose(cams, expected, atol=2e-4)
        assert 0 <= cams.min() < 0.9 < cams.max() < 1


def test_images_of_equal_size_share_forwards_and_keep_their_order_and_cams(
    model: CamNet, tmp_path: Path
) -> None:
    mixed, rng = [], np.random.default_rng(0)
    for index, size in enumerate([(30, 40), (40, 30), (30, 40), (30, 40), (47, 33), (40, 30)]):
        path = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
        mixed.append(Sample(str(index), path, (index % 3, 4)[: 1 + index % 2]))
    labels, sizes = LabelsConfig(scales=(0.5, 1.0)), []
    handle = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    together = list(infer_cams(model, mixed, labels, device=CPU, batch_size=2))
    handle.remove()
    assert sizes == [4, 4, 2, 2, 4, 4, 2, 2]  # with flips: two, one; two; one of 33 x 47
    apart = list(infer_cams(model, mixed, labels, device=CPU, batch_size=1))
    assert [found.sample for found in together] == mixed
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.cams, other.cams, atol=2e-4)


def test_a_class_without_any_activation_gives_zeros(model: CamNet, smooth: list[Sample]) -> None:
    model = copy.deepcopy(model)
    model.classifier.weight.data[1] = 0.0
    cams = next(infer_cams(model, smooth, LabelsConfig(scales=(1.0,)), device=CPU)).cams
    assert not cams[0].any()
    assert cams[1].max() > 0.9


@pytest.mark.parametrize("score", [0.0, 0.15, 0.155, 0.3, 0.7])
def test_a_pseudo_label_is_that_of_a_loop_and_a_cam_equal_to_the_score_is_background(
    score: float,
) -> None:
    at = np.float32(score)
    cams = np.random.default_rng(0).random((3, 20, 20)).round(1).astype(np.float32)  # with ties
    cams[:, 0] = 0
    cams[0, 0, :2] = at, np.nextafter(at, np.float32(2))
    label = pseudo_label(cams, (3, 7, 19), score)
    assert label[0, :3].tolist() == [0, 4, 0]
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, reference.label_map(cams, (3, 7, 19), at))
