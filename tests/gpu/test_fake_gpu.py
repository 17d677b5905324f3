"""No tensor is left on the CPU by inference and the optimiser, on a GPU that is not there.

Every value of a switch once. test_host_sync.py tries views, networks, losses and training steps,
with their backward passes, and switches in pairs. A number that a result depends on, but no device
(a rate, a threshold), is not varied.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_stages import FEW_PAIRS, affinity_net, cam_net, deeplab, few_rows, on_device
from device_watch import CUDA, fake_gpu, no_mixed_devices
from torch import Tensor
from torch.utils._pytree import tree_leaves

from wsss.config import LabelsConfig, TrainConfig
from wsss.data.voc import Sample
from wsss.labels import infer
from wsss.labels.infer import ImageCams, infer_cams, multi_scale_cams
from wsss.labels.refine import random_walk
from wsss.labels.refine.pamr import pamr
from wsss.labels.refine.random_walk import walk_labels
from wsss.labels.segment import multi_scale_probs, segment_image
from wsss.presets import PRESETS, TINY, TINY_DEEPLAB
from wsss.segmentation_config import DeepLabConfig, PamrConfig, RandomWalkConfig
from wsss.training.optim import build_sgd


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with fake_gpu(), no_mixed_devices():
        yield


def assert_all_on_device(*results: Any) -> None:
    tensors = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
    assert tensors
    assert {tensor.device for tensor in tensors} == {CUDA}


def picture(height: int = 50, width: int = 67) -> Tensor:
    """A decoded image, on the CPU."""
    return torch.zeros(height, width, 3, dtype=torch.uint8).permute(2, 0, 1)


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """Images of two sizes whose files are not read."""
    sizes = {"a": (50, 67), "b": (50, 67), "c": (40, 67)}
    for module in (infer, random_walk):
        monkeypatch.setattr(module, "read_image", lambda path: picture(*sizes[path.name]))
    labels = {"a": (0,), "b": (1, 4), "c": (2,)}
    return [Sample(name, Path(name), labels[name]) for name in sizes]


def test_every_switch_of_the_training_settings_is_tried_or_has_a_reason() -> None:
    tried = {"cls_reduction", "cls_over_views", "precision", "momentum", "bias_decay", "nesterov"}
    assert set(on_device(TrainConfig)) == tried


@pytest.mark.parametrize("row", few_rows(TrainConfig))
def test_the_optimiser_stays_on_the_device(row: dict[str, Any]) -> None:
    train = TrainConfig(**row)
    model = cam_net(PRESETS["tiny"].network, CUDA)
    parameters = [p for group in model.parameter_groups().values() for p in group]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = build_sgd(model.parameter_groups(), train)
    optimizer.step()
    assert_all_on_device(optimizer.state_dict()["state"])


@pytest.mark.parametrize("row", few_rows(LabelsConfig))
def test_multi_scale_cams_take_images_from_the_cpu(row: dict[str, Any]) -> None:
    labels = LabelsConfig(scales=(0.5, 1.0), **row)
    model = cam_net(TINY.network, CUDA).eval()
    with torch.inference_mode():
        cams = multi_scale_cams(model, [picture(), picture()], [(0,), (1, 4)], labels, device=CUDA)
    assert_all_on_device(cams)
    assert [tuple(each.shape) for each in cams] == [(1, 50, 67), (2, 50, 67)]


def test_cams_come_back_to_the_host(samples: list[Sample]) -> None:
    model = cam_net(TINY.network, torch.device("cpu"))
    found = list(infer_cams(model, samples, TINY.labels, device=CUDA))
    assert [image.cams.shape for image in found] == [(1, 50, 67), (2, 50, 67), (1, 40, 67)]


@pytest.mark.parametrize("row", few_rows(DeepLabConfig))
def test_the_segmentation_network_infers_on_the_device_under_every_switch_in_bf16(
    row: dict[str, Any],
) -> None:
    settings = TINY_DEEPLAB.model_dump() | row | {"precision": "bf16"}
    config = DeepLabConfig.model_validate(settings)
    with torch.inference_mode():
        model = deeplab(config, CUDA).eval()
        assert_all_on_device(multi_scale_probs(model, picture(), config, device=CUDA))


def test_label_probabilities_come_back_to_the_host() -> None:
    model = deeplab(TINY_DEEPLAB, CUDA).eval()
    probs = segment_image(model, picture(), TINY_DEEPLAB, device=CUDA)
    assert probs.shape[1:] == (50, 67)


@pytest.mark.parametrize("row", few_rows(RandomWalkConfig))
def test_the_walk_finds_its_device_under_every_switch_in_bf16(
    row: dict[str, Any], samples: list[Sample]
) -> None:
    settings = FEW_PAIRS.model_dump() | row | {"precision": "bf16"}
    config = RandomWalkConfig.model_validate(settings)
    model = affinity_net(TINY.network, config, torch.device("cpu"))
    plain = [ImageCams(s, np.zeros((len(s.labels), 50, 67), np.float32)) for s in samples]
    walked = list(walk_labels(model, plain, config, device=CUDA))
    assert [image.cams.shape for image in walked] == [image.cams.shape for image in plain]


def test_the_mask_refinement_stays_on_the_device() -> None:
    image, masks = torch.zeros(3, 50, 67, device=CUDA), torch.zeros(2, 50, 67, device=CUDA)
    assert_all_on_device(pamr(image, masks, PamrConfig(iterations=2)))
