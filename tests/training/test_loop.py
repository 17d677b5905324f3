"""The one training loop: parts of a batch, checkpoints by time, and what the host reads."""

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from wsss.config import NetworkConfig, Precision, RunConfig
from wsss.data.errors import DataError
from wsss.data.loading.batches import CropBatch, CropDataset
from wsss.data.voc import Sample
from wsss.gpu_check.trainings import cam_case, made_up_batch
from wsss.networks.deeplab import build_deeplab
from wsss.networks.precision import products
from wsss.overrides import ConfigError, apply_overrides
from wsss.segmentation_config import DeepLabConfig, RandomWalkConfig
from wsss.training import loop
from wsss.training.affinity import AffinityStep, build_affinity_net
from wsss.training.cam import CamStep, build_cam_net, cam_training, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.execution import Execution
from wsss.training.loop import (
    LAG,
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
GIB = 2**30
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


def step_of(kind: str, frozen: RunConfig, process: Process) -> Step:
    """One of CAMs, of affinities, or of a segmentation network with this `loss_size`."""
    if kind == "cam":
        return CamStep(cam_case(frozen, {}).build(), frozen, process)
    narrow: dict[str, Any] = {"backbone": "resnet10_narrow", "weights": "none"}
    if kind == "affinity":
        walk = RandomWalkConfig(radius=3, frozen_backbone=False)
        return AffinityStep(build_affinity_net(NetworkConfig(**narrow), walk), walk, process)
    config = DeepLabConfig(**narrow, rates=(2, 3), loss_size=kind)  # type: ignore[arg-type]
    return SegmentationStep(build_deeplab(config, K), config, process)


@pytest.mark.parametrize("micro_batch", [1, 3])
@pytest.mark.parametrize("kind", ["cam", "feature_map", "image", "affinity"])
def test_parts_of_a_batch_give_its_numbers_and_every_parameter_its_gradient(
    kind: str, micro_batch: int, frozen: RunConfig
) -> None:
    batch, found = made_up_batch(4, 48, label_maps=kind != "cam"), []
    if kind != "cam":
        batch.targets[0] = 255  # without any label
    for execution in (Execution(), Execution(micro_batch=micro_batch)):
        step = step_of(kind, frozen, Process(execution=execution))
        values = step(batch, Moment(starts_epoch=True))
        assert step.micro_batch == (execution.micro_batch or 4)
        assert re.match(r"lower (train\.|random_walk\.)?lr \(now 0", step.remedy)
        trained = {name: p for name, p in step.network.named_parameters() if p.requires_grad}
        groups = step.optimizer.param_groups
        assert sorted(map(id, trained.values())) == sorted(
            id(p) for g in groups for p in g["params"]
        )
        found.append((values, {name: p.grad for name, p in trained.items()}))
    (values, whole), (other, parts) = found
    assert values[0] > 0
    torch.testing.assert_close(other, values, rtol=1e-4, atol=1e-7)
    assert any(gradient.abs().max() > 1e-4 for gradient in whole.values())
    for name, gradient in whole.items():
        assert gradient.any(), name
        torch.testing.assert_close(parts[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_a_part_of_a_batch_is_refused_where_batch_norm_is_trained(
    small: RunConfig, samples: list[Sample]
) -> None:
    model = build_cam_net(small, samples, K)
    parts, whole = (Process(execution=Execution(micro_batch=count)) for count in (2, 4))
    with pytest.raises(ConfigError, match=r"--micro-batch 2: .* all 4 images .*frozen"):
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


@pytest.mark.parametrize(
    ("local_batch", "free", "expected"),
    [(16, 100, 16), (16, 20, 16), (16, 19, 8), (6, 6, 3), (7, 6, 1), (16, 1, 1)],
)
def test_the_micro_batch_is_the_largest_equal_part_that_the_memory_holds(
    local_batch: int, free: int, expected: int
) -> None:
    # 1 GiB anyway and 1 GiB an image; 85 % of the free memory is planned with.
    assert fitting(local_batch, 2 * GIB, 3 * GIB, free * GIB) == expected


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


@pytest.mark.parametrize(
    ("largest", "share", "expected"),
    [(2, 1.0, 16), (2, 0.5, 8), (1, 1.0, 1), (0, 1.0, 1)],
    ids=[".85 of 20 GiB free", ".85 of 16 less those held", "two do not fit", "none fits"],
)
def test_auto_plans_with_what_is_free_and_with_its_share_of_the_gpu(
    largest: int, share: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = [0]
    gpu = SimpleNamespace(
        reset_peak_memory_stats=lambda device: None,
        empty_cache=lambda: None,
        memory_allocated=lambda device: 4 * GIB,  # held by this process
        max_memory_allocated=lambda device: (5 + tried[-1]) * GIB,
        mem_get_info=lambda device: (20 * GIB, 32 * GIB),
    )
    monkeypatch.setattr(torch, "cuda", gpu)

    def try_images(count: int) -> None:
        tried.append(count)
        if count > largest:
            raise torch.OutOfMemoryError("full")

    assert measured(try_images, 16, device=torch.device("cuda"), gpu_share=share) == expected


def test_all_ranks_take_the_micro_batch_of_the_one_with_the_least_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Rank(Process):
        def gather(self, item: Any) -> list[Any]:
            return [4, item, 2]

    step = Broken(nn.Linear(1, 1), at=0)
    step.process = Rank(device=torch.device("cuda"))
    for own, taken in ((8, 2), (1, 1)):
        monkeypatch.setattr(loop, "measured", lambda *_, own=own, **__: own)
        assert step._fitting(made_up_batch(8, 48), None) == taken


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
        step(made_up_batch(4, 48))


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

    class Watching(Broken):
        def terms(self, forward: Any, part: CropBatch, whole: int) -> torch.Tensor:
            seen.append(flags())
            found = super().terms(forward, part, whole)
            found.register_hook(lambda gradient: seen.append(flags()))
            return found

    Watching(nn.Linear(1, 1), at=0, precision=precision)(made_up_batch(4, 48))
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
    assert [record.means for record in after] == [record.means for record in records[1:]]
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


def test_beside_a_gpu_numbers_are_read_some_steps_later_and_all_at_the_end() -> None:
    readings, seen = Readings(torch.device("cuda")), list[float]()
    readings.on_gpu = False  # here are none to copy
    for iteration in range(1, 21):
        readings.post(iteration, torch.tensor([float(iteration)]))
        seen.extend(reading.norm for reading in readings.arrived())
        assert seen == list(range(1, iteration - LAG + 1))
    rest = list(readings.arrived(all_of_them=True))
    assert [reading.iteration for reading in rest] == list(range(20 - LAG + 1, 21))
    values = torch.zeros(1)  # on their way until their event is waited for
    copied: Any = SimpleNamespace(synchronize=lambda: values.fill_(21))
    readings.waiting.append((21, values, copied))
    assert [reading.norm for reading in readings.arrived(all_of_them=True)] == [21]


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


@pytest.mark.parametrize(
    ("num_gpus", "execution", "device", "expected"),
    [
        (1, Execution(), "cpu", 0),
        (1, Execution(3), "cpu", 3),
        (1, Execution(0), "cuda", 0),
        (1, Execution(), "cuda", 8),
        (1, Execution(gpu_share=0.25), "cuda", 3),
        (4, Execution(), "cuda", 3),
        (16, Execution(), "cuda", 1),
    ],
)
def test_data_is_loaded_by_processes_where_a_gpu_trains(
    num_gpus: int, execution: Execution, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
    assert num_loader_workers(execution, torch.device(device)) == expected
