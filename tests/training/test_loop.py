"""The one training loop: parts of a batch, checkpoints by time, and what the host reads."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsss.config import NetworkConfig, Precision, RunConfig
from wsss.data.errors import DataError
from wsss.data.loading.batches import CropBatch, CropDataset
from wsss.data.voc import Sample
from wsss.networks.deeplab import build_deeplab
from wsss.networks.precision import products
from wsss.overrides import apply_overrides
from wsss.segmentation_config import DeepLabConfig, RandomWalkConfig
from wsss.training import loop
from wsss.training.affinity import AffinityStep, build_affinity_net
from wsss.training.cam import CamStep, build_cam_net, cam_training, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.execution import Execution
from wsss.training.loop import (
    LAG,
    MicroBatchError,
    Moment,
    NoMemoryError,
    Reading,
    Readings,
    Step,
    Training,
    fitting,
    loader_for,
    measured,
    num_loader_workers,
)
from wsss.training.optim import Poly
from wsss.training.process import Process
from wsss.training.segmentation import SegmentationStep

K = 20
PER_EPOCH = 4
"""Iterations of an epoch: 16 images in batches of 4."""
EACH_STEP = Process(execution=Execution(checkpoint_minutes=1e-9))
"""A checkpoint after every step."""


@pytest.fixture(scope="module")
def frozen(small: RunConfig) -> RunConfig:
    """Both views, and statistics that do not depend on the batch."""
    return apply_overrides(
        small,
        {
            "views.enhanced": True,
            "views.decreased": True,
            "network.batch_norm": "frozen",
            "network.spatial_attention": True,
            "train.lr": 0.01,
            "train.clip_norm": None,
        },
    )


# Parts of a batch


def random_batch(targets: torch.Tensor) -> CropBatch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (4, 3, 48, 48), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[0, 0, 48, 48], [0, 0, 48, 40], [5, 0, 48, 48], [0, 3, 30, 48]])
    return CropBatch(pixels, boxes, targets)


def label_maps() -> torch.Tensor:
    """Four maps of unequal numbers of labelled pixels and borders, one without any."""
    maps = torch.full((4, 48, 48), 255, dtype=torch.uint8)
    maps[0] = 0
    maps[0, 8:, 12:] = 3
    maps[1, :20] = 0
    maps[1, 10:20] = 2
    maps[3, 2:5] = 1
    return maps


def cam(frozen: RunConfig, process: Process) -> tuple[Step, CropBatch]:
    torch.manual_seed(0)
    model = build_cam_net(apply_overrides(frozen, {"network.batch_norm": "train"}), [], K)
    model.frozen_norm = True
    targets = torch.zeros(4, K)
    targets[range(4), [0, 3, 3, 7]] = 1
    targets[1, 5] = 1
    return CamStep(model, frozen, process), random_batch(targets)


def deeplab(loss_size: str, process: Process) -> tuple[Step, CropBatch]:
    config = DeepLabConfig.model_validate(
        {"backbone": "resnet10_narrow", "weights": "none", "rates": (2, 3), "loss_size": loss_size}
    )
    return SegmentationStep(build_deeplab(config, K), config, process), random_batch(label_maps())


def affinity(process: Process) -> tuple[Step, CropBatch]:
    config = RandomWalkConfig(radius=3, frozen_backbone=False)
    network = NetworkConfig(backbone="resnet10_narrow", weights="none", frozen_stages=1)
    model = build_affinity_net(network, config)
    return AffinityStep(model, config, process), random_batch(label_maps())


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
@pytest.mark.parametrize("kind", ["cam", "feature_map", "image", "affinity"])
def test_parts_of_a_batch_give_its_losses_and_its_gradient(
    kind: str, micro_batch: int, frozen: RunConfig
) -> None:
    found = []
    for execution in (Execution(), Execution(micro_batch=micro_batch)):
        process = Process(execution=execution)
        if kind == "cam":
            step, batch = cam(frozen, process)
        elif kind == "affinity":
            step, batch = affinity(process)
        else:
            step, batch = deeplab(kind, process)
        values = step(batch)
        assert step.micro_batch == (execution.micro_batch or 4)
        gradients = {n: p.grad for n, p in step.network.named_parameters() if p.grad is not None}
        found.append((values, gradients))
    (values, whole), (other, parts) = found
    assert values[0] > 0
    torch.testing.assert_close(other, values, rtol=1e-5, atol=1e-7)
    assert whole.keys() == parts.keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_part_of_a_batch_is_refused_where_batch_norm_is_trained(
    small: RunConfig, samples: list[Sample]
) -> None:
    model = build_cam_net(small, samples, K)
    parts, whole = (Process(execution=Execution(micro_batch=count)) for count in (2, 4))
    with pytest.raises(MicroBatchError, match=r"--micro-batch 2: .* all 4 images .*frozen"):
        cam_training(model, small, samples, process=parts)
    assert cam_training(model, small, samples, process=whole)


def test_more_epochs_than_checkpoints_can_be_named_after_are_refused(
    small: RunConfig, samples: list[Sample]
) -> None:
    # Of 10,000 and 9,999 the latter would be taken for the newer one, by its name.
    model = build_cam_net(small, samples, K)
    with pytest.raises(DataError, match=r"40,000 iterations are 10,000 epochs .* than 9,999; use"):
        cam_training(model, apply_overrides(small, {"train.epochs": 10_000}), samples)
    assert cam_training(model, apply_overrides(small, {"train.epochs": 9_999}), samples)


def test_the_micro_batch_is_the_largest_equal_part_that_the_memory_holds() -> None:
    gib = 2**30
    # 1 GiB anyway and 1 GiB an image; 85 % of the free memory is planned with.
    assert fitting(16, 2 * gib, 3 * gib, 100 * gib) == 16
    assert fitting(16, 2 * gib, 3 * gib, 20 * gib) == 16
    assert fitting(16, 2 * gib, 3 * gib, 19 * gib) == 8
    assert fitting(6, 2 * gib, 3 * gib, 6 * gib) == 3
    assert fitting(7, 2 * gib, 3 * gib, 6 * gib) == 1
    with pytest.raises(MicroBatchError, match=r"one image takes 2\.0 GiB, but only 0\.8 G"):
        fitting(16, 2 * gib, 3 * gib, gib)


class Broken(Step):
    """A step whose gradient is infinite in one iteration, and whose loss is not."""

    names = ("loss",)
    remedy = "do it otherwise"

    def __init__(self, network: nn.Module, *, at: int, precision: Precision = "fp32") -> None:
        super().__init__(network, precision=precision)
        groups = [{"params": list(network.parameters()), "base_lr": 0.1}]
        self.optimizer = torch.optim.SGD(groups, 0.1, fused=True)
        self.calls, self.at = 0, at

    def whole(self, batch: CropBatch, moment: Moment) -> int:
        return len(batch.pixels)

    def terms(self, forward: Any, part: CropBatch, whole: int) -> torch.Tensor:
        self.calls += 1
        value = forward(part.pixels.float().mean((1, 2, 3))[:, None] / 255).mean()
        if self.calls == self.at:
            value = value + (value - value.detach()).sqrt()  # steep at 0
        return value[None]


def test_auto_plans_with_what_is_free_and_with_its_share_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gib, tried = 2**30, list[int]()
    held = 4 * gib  # by this process; each image of a forward takes 1 GiB, and the network 1
    peak, largest = [0], 2

    def try_images(count: int) -> None:
        if count > largest:
            raise torch.OutOfMemoryError("full")
        tried.append(count)
        peak[0] = held + (1 + count) * gib

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * gib, 32 * gib))

    def chosen(share: float) -> int:
        return measured(try_images, 16, device=torch.device("cuda"), gpu_share=share)

    assert chosen(1.0) == 16  # .85 of the 20 GiB that are free
    assert chosen(0.5) == 8  # .85 of 16 GiB less those held
    assert tried == [1, 1, 2] * 2
    largest = 1
    assert chosen(1.0) == 1  # two do not fit
    largest = 0
    with pytest.raises(torch.OutOfMemoryError):
        chosen(1.0)


@pytest.mark.parametrize(
    ("micro_batch", "frozen_norm", "told"),
    [
        (2, True, "2 images does not fit the GPU's memory (full); give a smaller --micro-batch"),
        (1, True, "1 image does not fit the GPU's memory (full); use smaller crops"),
        (4, False, "4 images does not fit the GPU's memory (full); use smaller crops"),
    ],
)
def test_a_step_without_memory_says_what_to_change(
    micro_batch: int, frozen_norm: bool, told: str
) -> None:
    class Large(Broken):
        def terms(self, forward: Any, part: CropBatch, whole: int) -> torch.Tensor:
            raise torch.OutOfMemoryError("full\nof tensors")

    step = Large(nn.Linear(1, 1), at=0)
    step.micro_batch, step.frozen_norm = micro_batch, frozen_norm
    with pytest.raises(NoMemoryError, match=re.escape(f"a forward of {told}")):
        step(random_batch(label_maps()))


# Numbers


@pytest.mark.parametrize(
    ("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", True)]
)
def test_products_are_taken_as_the_precision_says_and_as_before_afterwards(
    precision: Precision, allowed: bool
) -> None:
    def flags() -> list[bool]:
        return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]

    before, seen = flags(), []
    network = nn.Linear(1, 1)
    network.weight.register_hook(lambda gradient: seen.append(flags()))

    class Watching(Broken):
        def terms(self, forward: Any, part: CropBatch, whole: int) -> torch.Tensor:
            seen.append(flags())
            return network.weight[0] * 1.0

    Watching(network, at=0, precision=precision)(random_batch(label_maps()))
    assert seen == [[allowed, allowed]] * 2  # forward and backward
    assert flags() == before
    with pytest.raises(ValueError, match="within"), products(precision):
        raise ValueError("within")
    assert flags() == before


# Checkpoints by time


def test_a_training_that_dies_within_an_epoch_ends_at_the_weights_and_losses_of_an_unbroken_one(
    frozen: RunConfig, samples: list[Sample], tmp_path: Path
) -> None:
    whole = build_cam_net(frozen, samples, K)
    records = list(train_cam(whole, frozen, samples))
    folder, broken = CheckpointFolder(tmp_path), build_cam_net(frozen, samples, K)
    training = cam_training(
        broken, frozen, samples, checkpoints=folder, process=EACH_STEP
    ).run()  # left where it is, and not closed: as one whose process is killed
    for found in training:
        if isinstance(found, Reading) and found.iteration == PER_EPOCH + 3:
            break
    # The reading of iteration 7 came before its checkpoint.
    names = ["epoch_0001_0000005.pt", "epoch_0001_0000006.pt"]
    assert [path.name for path in folder.paths()] == names
    model = build_cam_net(frozen, samples, K)
    after = list(train_cam(model, frozen, samples, checkpoints=folder))
    assert [record.epoch for record in after] == [2, 3]
    assert [record.step_losses for record in after] == [r.step_losses for r in records[1:]]
    assert [record.grad_norm for record in after] == [r.grad_norm for r in records[1:]]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert [path.name for path in folder.paths()] == ["epoch_0002.pt", "epoch_0003.pt"]
    assert training.gi_frame is not None  # type: ignore[attr-defined]


BETWEEN = ["epoch_0001.pt", "epoch_0002.pt", "epoch_0003.pt"]
WITHIN = ["epoch_0000_0000003.pt", "epoch_0001_0000007.pt", "epoch_0002_0000011.pt"]


@pytest.mark.parametrize(
    ("execution", "names"),
    [(Execution(), sorted(BETWEEN + WITHIN)), (Execution(checkpoint_minutes=0), BETWEEN)],
    ids=["ten minutes", "none"],
)
def test_within_an_epoch_a_checkpoint_comes_only_after_the_minutes(
    execution: Execution,
    names: list[str],
    small: RunConfig,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(loop.time, "monotonic", lambda: now)
    saved: list[str] = []
    model = build_cam_net(small, samples, K)
    folder = CheckpointFolder(tmp_path, after_save=lambda path: saved.append(path.name))
    process = Process(execution=execution)
    training = cam_training(model, small, samples, checkpoints=folder, process=process)
    for found in training.run():
        if isinstance(found, Reading):
            now += 240  # seconds a step
    assert saved == names


# What the host reads


class Stream:
    """Stands in for a GPU's stream: copies arrive when their event is waited for."""

    def __init__(self) -> None:
        self.waits = 0

    def event(self) -> "Stream":
        return self

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        self.waits += 1


def test_beside_a_gpu_numbers_are_read_some_steps_later_and_all_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, empty = Stream(), torch.empty
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    monkeypatch.setattr(
        torch, "empty", lambda *size, pin_memory=False, **given: empty(*size, **given)
    )
    readings = Readings(torch.device("cuda"))
    seen: list[int] = []
    for iteration in range(1, 21):
        readings.post(iteration, torch.tensor([float(iteration)]))
        seen.extend(reading.iteration for reading in readings.arrived())
        assert seen == list(range(1, iteration - LAG + 1))
    assert stream.waits == 20 - LAG
    rest = list(readings.arrived(all_of_them=True))
    assert [reading.iteration for reading in rest] == list(range(20 - LAG + 1, 21))
    assert [float(reading.values[0]) for reading in rest] == list(range(20 - LAG + 1, 21))


def test_with_a_lag_a_broken_step_is_reported_later_but_moves_no_weight(
    small: RunConfig, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Linear(1, 1)
    crops = CropDataset(samples, K, small.train, rng_seed=0)
    loader = loader_for(Process(), crops, 4)
    training = Training(Broken(network, at=3), loader, Poly(8, power=0.0))
    training.readings.lag = 2
    seen = []
    with pytest.raises(
        loop.DivergedError, match=r"at iteration 2: gradient norm inf, .*; do it other"
    ):
        seen.extend(reading.iteration for reading in training.steps())
    assert seen == [1, 2]
    assert training.iteration == 4  # the epoch was over before the host saw it
    assert all(parameter.isfinite().all() for parameter in network.parameters())


# Loading


def test_data_is_loaded_by_processes_where_a_gpu_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for num_gpus, execution, device, expected in (
        (1, Execution(), cpu, 0),
        (1, Execution(3), cpu, 3),
        (1, Execution(3), gpu, 3),
        (1, Execution(0), gpu, 0),
        (1, Execution(), gpu, 8),
        (1, Execution(gpu_share=0.25), gpu, 3),
        (4, Execution(), gpu, 3),
        (16, Execution(), gpu, 1),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=num_gpus: count)
        assert num_loader_workers(execution, device) == expected
