"""No tensor is left on the CPU: every stage under every switch, on a GPU that is not there.

Forward passes in bf16 and without gradients, every value of a switch once; test_host_sync.py tries
views, losses and training steps in fp32, with their backward passes, and switches in pairs. A
number that a result depends on, but no device (a rate, a threshold), is not varied.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_stages import (
    CROP,
    FEW_PAIRS,
    NUM_CLASSES,
    affinity_net,
    affinity_step,
    all_on,
    cam_net,
    cam_step,
    crops,
    deeplab,
    deeplab_step,
    few_rows,
    labelled,
    on_device,
)
from device_watch import CUDA, fake_gpu, host_waits, no_mixed_devices
from torch import Tensor
from torch.utils._pytree import tree_leaves

from wsss.config import LabelsConfig, NetworkConfig, Settings, TrainConfig, ViewsConfig
from wsss.data.voc import Sample
from wsss.labels import infer
from wsss.labels.infer import ImageCams, infer_cams, multi_scale_cams
from wsss.labels.refine import random_walk
from wsss.labels.refine.pamr import pamr
from wsss.labels.refine.random_walk import walk_labels
from wsss.labels.segment import multi_scale_probs, segment_image
from wsss.method.losses import classification_loss
from wsss.method.views import network_inputs
from wsss.networks.parts.association import BLOCK_PIXELS, SMALL_MAP_PIXELS, associate
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS, PRESETS, TINY, TINY_DEEPLAB
from wsss.segmentation_config import DeepLabConfig, PamrConfig, RandomWalkConfig
from wsss.training.optim import build_sgd, clip_gradients


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    with fake_gpu(), no_mixed_devices():
        yield


def assert_all_on_device(*results: Any) -> None:
    tensors = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
    assert tensors
    assert {tensor.device for tensor in tensors} == {CUDA}


def distinct(presets: Mapping[str, Settings]) -> list[str]:
    """The names of presets, one of those that are equal."""
    return list({preset: name for name, preset in presets.items()}.values())


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
    return [Sample(name, Path(name), labels[name], "xml") for name in sizes]


def test_every_switch_of_the_training_settings_is_tried_or_has_a_reason() -> None:
    tried = {"cls_reduction", "cls_over_views", "precision", "momentum", "bias_decay", "nesterov"}
    assert set(on_device(TrainConfig)) == tried


@pytest.mark.parametrize(
    ("preset", "precision"),
    [*((preset, p) for preset in PRESETS for p in ("fp32", "bf16")), ("tiny", "tf32")],
)
def test_the_method_of_each_preset_stays_on_the_device(preset: str, precision: str) -> None:
    settings: dict[str, Any] = {"train.precision": precision}
    if precision == "bf16":  # with all that the method has; else as the preset is
        settings |= all_on("network", NetworkConfig) | all_on("views", ViewsConfig)
    config = apply_overrides(PRESETS[preset], settings)
    model = cam_net(config.network, CUDA)
    seen = []
    model.classifier.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    losses = cam_step(model, crops(config.train.crop_size, CUDA), config)
    assert_all_on_device(losses, dict(model.named_buffers()))
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}


@pytest.mark.parametrize("row", few_rows(NetworkConfig))
def test_the_network_infers_on_the_device_under_every_switch(row: dict[str, Any]) -> None:
    model = cam_net(NetworkConfig.model_validate(TINY.network.model_dump() | row), CUDA).eval()
    x = network_inputs(*crops(CROP, CUDA)[:2], ViewsConfig())[0]
    with torch.inference_mode():
        assert_all_on_device(model(x))


def test_the_calibration_of_new_batch_norms_stays_on_the_device() -> None:
    settings = all_on("network", NetworkConfig) | {"network.batch_norm": "frozen"}
    model = cam_net(apply_overrides(TINY, settings).network, CUDA)
    x = network_inputs(*crops(CROP, CUDA)[:2], ViewsConfig())[0]
    with host_waits(CUDA) as waits, model.calibrating():
        assert_all_on_device(model(x))
    assert sum(waits.values()) == len(model.new_norms)  # each reads its count, once in a training
    assert_all_on_device(dict(model.named_buffers()))


@pytest.mark.parametrize("num_pixels", [SMALL_MAP_PIXELS, BLOCK_PIXELS + 1])
@pytest.mark.parametrize("temperature", [None, 0.1])
def test_the_context_association_of_small_and_large_maps_stays_on_the_device_in_bf16(
    num_pixels: int, temperature: float | None
) -> None:
    features = torch.zeros(2, num_pixels, 8, device=CUDA)
    with torch.autocast("cuda", torch.bfloat16):
        assert_all_on_device(associate(features, temperature=temperature))


@pytest.mark.parametrize("over_classes", on_device(TrainConfig)["cls_reduction"])
@pytest.mark.parametrize("over_views", on_device(TrainConfig)["cls_over_views"])
def test_the_classification_loss_stays_on_the_device(over_classes: str, over_views: str) -> None:
    logits, _, targets = outputs(3)
    loss = classification_loss(logits, targets, over_classes=over_classes, over_views=over_views)
    assert_all_on_device(loss)


def outputs(num_views: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a network says of a batch, logits and CAMs, and the batch's targets."""
    logits = torch.zeros(num_views, 2, NUM_CLASSES, device=CUDA)
    return logits, torch.zeros(*logits.shape, 6, 6, device=CUDA), crops(CROP, CUDA).targets


@pytest.mark.parametrize("row", few_rows(TrainConfig))
def test_the_optimiser_stays_on_the_device(row: dict[str, Any]) -> None:
    train = TrainConfig(**row)
    model = cam_net(PRESETS["tiny"].network, CUDA)
    parameters = [p for group in model.parameter_groups().values() for p in group]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = build_sgd(model.parameter_groups(), train)
    assert_all_on_device(clip_gradients(parameters, 1.0))
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


@pytest.mark.parametrize("preset", distinct({k: v.labels for k, v in PRESETS.items()}))
def test_the_cams_of_each_preset_come_back_to_the_host(preset: str, samples: list[Sample]) -> None:
    model = cam_net(TINY.network, torch.device("cpu"))
    found = list(infer_cams(model, samples, PRESETS[preset].labels, device=CUDA))
    assert [image.cams.shape for image in found] == [(1, 50, 67), (2, 50, 67), (1, 40, 67)]


@pytest.mark.parametrize("preset", distinct(DEEPLAB_PRESETS))
def test_the_segmentation_network_of_each_preset_stays_on_the_device(preset: str) -> None:
    config = DEEPLAB_PRESETS[preset]
    size = config.crop_size
    loss = deeplab_step(deeplab(config, CUDA), labelled(size, CUDA), config)
    assert_all_on_device(loss)


@pytest.mark.parametrize("row", few_rows(DeepLabConfig))
def test_the_segmentation_network_stays_on_the_device_under_every_switch_in_bf16(
    row: dict[str, Any],
) -> None:
    settings = TINY_DEEPLAB.model_dump() | row | {"precision": "bf16"}
    config = DeepLabConfig.model_validate(settings)
    model = deeplab(config, CUDA)
    assert_all_on_device(deeplab_step(model, labelled(CROP, CUDA), config))
    with torch.inference_mode():
        probs = multi_scale_probs(model.eval(), picture(), config, device=CUDA)
    assert_all_on_device(probs)


def test_label_probabilities_come_back_to_the_host() -> None:
    model = deeplab(TINY_DEEPLAB, CUDA).eval()
    probs = segment_image(model, picture(), TINY_DEEPLAB, device=CUDA)
    assert probs.shape[1:] == (50, 67)


@pytest.mark.parametrize("preset", distinct(LABEL_PRESETS))
def test_the_affinity_network_of_each_preset_stays_on_the_device(preset: str) -> None:
    config = LABEL_PRESETS[preset].random_walk
    model = affinity_net(PRESETS[preset].network, config, CUDA)
    size = config.crop_size
    assert_all_on_device(affinity_step(model, labelled(size, CUDA), config))


@pytest.mark.parametrize("row", few_rows(RandomWalkConfig))
def test_affinity_and_walk_find_their_device_under_every_switch_in_bf16(
    row: dict[str, Any], samples: list[Sample]
) -> None:
    settings = FEW_PAIRS.model_dump() | row | {"precision": "bf16"}
    config = RandomWalkConfig.model_validate(settings)
    model = affinity_net(TINY.network, config, CUDA)
    assert_all_on_device(affinity_step(model, labelled(CROP, CUDA), config))
    plain = [ImageCams(s, np.zeros((len(s.labels), 50, 67), np.float32)) for s in samples]
    walked = list(walk_labels(model.cpu(), plain, config, device=CUDA))
    assert [image.cams.shape for image in walked] == [image.cams.shape for image in plain]


def test_the_mask_refinement_stays_on_the_device() -> None:
    image, masks = torch.zeros(3, 50, 67, device=CUDA), torch.zeros(2, 50, 67, device=CUDA)
    assert_all_on_device(pamr(image, masks, PamrConfig(iterations=2)))
