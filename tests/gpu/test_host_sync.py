"""No step makes the host wait for a GPU: forward pass, losses and backward pass.

Nor does the loop around the steps, within an epoch. On fake tensors of the device which stands in
for CUDA (device_watch.py); bf16 and whole epochs on the CPU.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from device_stages import (
    CROP,
    FEW_PAIRS,
    NUM_CLASSES,
    affinity_net,
    all_on,
    cam_net,
    crops,
    deeplab,
    labelled,
    on_device,
    rows,
)
from device_watch import WITH_BACKWARD, fake_gpu, host_waits, no_mixed_devices
from torch import Tensor

from wsss.config import NetworkConfig, RunConfig, TransferConfig, ViewsConfig
from wsss.data.loading.batches import CropBatch
from wsss.data.pictures.mask import read_mask
from wsss.data.voc import Sample
from wsss.method.losses import cam_losses
from wsss.method.views import network_inputs
from wsss.networks.deeplab import build_deeplab
from wsss.networks.parts.association import BLOCK_PIXELS, SMALL_MAP_PIXELS, associate
from wsss.overrides import apply_overrides
from wsss.presets import TINY, TINY_DEEPLAB, TINY_LABELS
from wsss.segmentation_config import DeepLabConfig, RandomWalkConfig
from wsss.training import loop
from wsss.training.affinity import AffinityStep, affinity_training, build_affinity_net
from wsss.training.cam import CamStep, build_cam_net, cam_training
from wsss.training.execution import Execution
from wsss.training.loop import Step, Training
from wsss.training.process import Process
from wsss.training.segmentation import SegmentationStep, segmentation_training

NO_WAITS: Counter[str] = Counter()
CPU = torch.device("cpu")
FULL = apply_overrides(TINY, all_on("network", NetworkConfig) | all_on("views", ViewsConfig))
"""The whole method, on the small network."""


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with fake_gpu(), no_mixed_devices():
        yield WITH_BACKWARD


def waits_of(loss: Callable[[], Tensor], device: torch.device) -> Counter[str]:
    """Count the waits of a loss and of its gradient."""
    with host_waits(device) as waits:
        loss().backward()
    return waits


def test_the_views_wait_for_nothing_under_every_reading_and_switch(gpu: torch.device) -> None:
    values, batch = on_device(ViewsConfig), crops(CROP, gpu)
    for combination in itertools.product(*values.values()):
        views = ViewsConfig(**dict(zip(values, combination, strict=True)))
        with host_waits(gpu) as waits:
            inputs = network_inputs(batch.pixels, batch.boxes, views)
        assert waits == NO_WAITS, views
        assert inputs.device == gpu


@pytest.mark.parametrize("row", rows(TransferConfig))
def test_the_losses_wait_for_nothing_under_every_switch(
    row: dict[str, Any], gpu: torch.device
) -> None:
    transfer, targets = TransferConfig(**row), crops(CROP, gpu).targets
    for enhanced, decreased in itertools.product((False, True), repeat=2):
        views = ViewsConfig(enhanced=enhanced, decreased=decreased)
        shape = (1 + len(views.names), 2, NUM_CLASSES, 6, 6)
        cams = torch.zeros(shape, device=gpu, requires_grad=True)
        how = "sum" if decreased else "mean"
        loss = partial(
            cam_losses, targets=targets, views=views, transfer=transfer, over_classes=how
        )

        def total() -> Tensor:
            return loss(cams.mean((3, 4)), cams, over_views=how).total  # noqa: B023

        assert waits_of(total, gpu) == NO_WAITS
        assert cams.grad is not None


def assert_waits_for_nothing(step: Step, batch: CropBatch, device: torch.device) -> None:
    """Take a step, which moves its batch and answers on the device."""
    with host_waits(device) as waits:
        values = step(batch)
    assert waits == NO_WAITS
    assert values.device.type == device.type
    gradients = [parameter.grad for parameter in step.parameters]
    assert {g.device.type for g in gradients if g is not None} == {device.type}


@pytest.mark.parametrize("row", rows(NetworkConfig))
def test_the_cam_step_waits_for_nothing_under_every_switch_of_the_network(
    row: dict[str, Any], gpu: torch.device
) -> None:
    settings = {f"network.{name}": value for name, value in row.items()}
    config = apply_overrides(FULL, settings | {"views.decreased": False})
    step = CamStep(cam_net(config.network, CPU), config, Process(device=gpu))
    assert_waits_for_nothing(step, crops(CROP, CPU), gpu)


@pytest.mark.parametrize("num_pixels", [SMALL_MAP_PIXELS, BLOCK_PIXELS + 1])
@pytest.mark.parametrize("temperature", [None, 0.1])
def test_the_context_association_of_small_and_large_maps_waits_for_nothing(
    num_pixels: int, temperature: float | None, gpu: torch.device
) -> None:
    features = torch.zeros(2, num_pixels, 8, device=gpu, requires_grad=True)
    found = waits_of(lambda: associate(features, temperature=temperature).sum(), gpu)
    assert found == NO_WAITS
    assert features.grad is not None


@pytest.mark.parametrize("row", rows(DeepLabConfig))
def test_the_segmentation_step_waits_for_nothing_under_every_switch(
    row: dict[str, Any], gpu: torch.device
) -> None:
    config = DeepLabConfig.model_validate(TINY_DEEPLAB.model_dump() | row)
    step = SegmentationStep(deeplab(config, CPU), config, Process(device=gpu))
    assert_waits_for_nothing(step, labelled(CROP, CPU), gpu)


@pytest.mark.parametrize("row", rows(RandomWalkConfig))
def test_the_affinity_step_waits_for_nothing_under_every_switch(
    row: dict[str, Any], gpu: torch.device
) -> None:
    config = RandomWalkConfig.model_validate(FEW_PAIRS.model_dump() | row)
    model = affinity_net(TINY.network, config, CPU)
    step = AffinityStep(model, config, Process(device=gpu))
    assert_waits_for_nothing(step, labelled(CROP, CPU), gpu)


def test_the_steps_wait_for_nothing_in_bf16() -> None:
    config = apply_overrides(FULL, {"train.precision": "bf16"})
    step = CamStep(cam_net(config.network, CPU), config)
    assert_waits_for_nothing(step, crops(CROP, CPU), CPU)
    settings = TINY_DEEPLAB.model_copy(update={"precision": "bf16"})
    step = SegmentationStep(deeplab(settings, CPU), settings)
    assert_waits_for_nothing(step, labelled(CROP, CPU), CPU)


def test_the_parts_of_a_step_wait_for_nothing(gpu: torch.device) -> None:
    process = Process(device=gpu, execution=Execution(micro_batch=1))
    step = SegmentationStep(deeplab(TINY_DEEPLAB, CPU), TINY_DEEPLAB, process)
    assert_waits_for_nothing(step, labelled(CROP, CPU), gpu)


# Whole epochs, on the CPU


def trainings(small: RunConfig, samples: list[Sample], folder: Path) -> dict[str, Training]:
    """One training of each kind."""
    config = apply_overrides(
        small, {"views.enhanced": True, "views.decreased": True, "train.clip_norm": 1.0}
    )
    segmentation = TINY_DEEPLAB.model_copy(
        update={"iterations": 4, "batch_size": 4, "crop_size": 32, "clip_norm": 1.0}
    )
    walk = TINY_LABELS.random_walk.model_copy(
        update={"batch_size": 4, "crop_size": 48, "min_long_side": 48, "max_long_side": 80}
    )
    masks = {s.image_id: folder / f"SegmentationClassAug/{s.image_id}.png" for s in samples}
    return {
        "cam": cam_training(build_cam_net(config, samples, 20), config, samples),
        "deeplab": segmentation_training(
            build_deeplab(segmentation, 20), segmentation, samples, [*masks.values()]
        ),
        "affinity": affinity_training(
            build_affinity_net(small.network, walk),
            samples,
            lambda s: read_mask(masks[s.image_id], 20),
            walk,
        ),
    }


@pytest.mark.parametrize("kind", ["cam", "deeplab", "affinity"])
def test_no_step_of_an_epoch_asks_for_a_value_on_the_host(
    kind: str,
    small: RunConfig,
    samples: list[Sample],
    drawn: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    training = trainings(small, samples, drawn)[kind]
    batches = list(training.loader.epoch(0))  # loading is on the host, whatever computes
    training.loader.epoch = lambda *_: iter(batches)  # type: ignore[method-assign]
    with host_waits(CPU) as waits:
        num_steps = len(list(training.steps()))
    assert num_steps == 4
    assert waits == NO_WAITS
    assert capsys.readouterr() == ("", "")


def test_a_value_asked_for_within_a_step_would_be_seen(
    small: RunConfig, samples: list[Sample], drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trainings(small, samples, drawn)["cam"]
    batches = list(training.loader.epoch(0))
    training.loader.epoch = lambda *_: iter(batches)  # type: ignore[method-assign]
    clip = loop.clip_grad_norm_

    def asking(*given: Any) -> Tensor:
        norm = clip(*given)
        assert math.isfinite(norm)
        return norm

    monkeypatch.setattr(loop, "clip_grad_norm_", asking)
    with host_waits(CPU) as waits:
        list(training.steps())
    assert sum(waits.values()) == 4
    assert "local_scalar_dense" in next(iter(waits))
