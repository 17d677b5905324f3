"""Training crops: what is in them, and that no worker or rank count changes what is trained on."""

import errno
import multiprocessing
import os
import signal
import tempfile
from multiprocessing.util import get_temp_dir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import get_worker_info

from wsss.basics.errors import ForeseenError
from wsss.basics.pool import pool_map
from wsss.config import RunConfig, TrainConfig
from wsss.data.errors import DataError
from wsss.data.loading import batches as loading
from wsss.data.loading import processes
from wsss.data.loading.batches import (
    CropBatch,
    CropDataset,
    Crops,
    LabelledCrops,
    Loader,
    epoch_order,
)
from wsss.data.loading.crops import CropPlan, cut_crop, plan_crop
from wsss.data.pictures.image import as_array, read_image
from wsss.data.voc import Sample
from wsss.presets import TINY_DEEPLAB
from wsss.training.affinity import AffinityCrops


@pytest.fixture(scope="module")
def crops(samples: list[Sample], small: RunConfig) -> CropDataset:
    return CropDataset(samples, 20, small.train, rng_seed=0)


def train_config(crop: int, low: int, high: int, **settings: bool | str) -> TrainConfig:
    # Not validated: crops of a few pixels can be counted by hand.
    return TrainConfig.model_construct(
        crop_size=crop, min_long_side=low, max_long_side=high, **settings
    )


def batches(crops: CropDataset, epoch: int = 0, **loader: int) -> list[CropBatch]:
    return list(Loader(crops, 4, **loader).epoch(epoch))


def assert_equal(first: list[CropBatch], second: list[CropBatch]) -> None:
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


# The same crops everywhere


def test_a_crop_depends_on_seed_epoch_and_image_alone(
    samples: list[Sample], small: RunConfig
) -> None:
    def crop(seed: int, epoch: int, index: int) -> torch.Tensor:
        return CropDataset(samples, 20, small.train, rng_seed=seed)[epoch, index][0]

    assert torch.equal(crop(0, 1, 2), crop(0, 1, 2))
    assert not torch.equal(crop(0, 1, 2), crop(1, 1, 2))
    assert not torch.equal(crop(0, 1, 2), crop(0, 2, 2))
    # The image's place in the list moves the crop, not only what is in it.
    twice = CropDataset([samples[0], samples[0]], 20, small.train, rng_seed=0)
    assert not torch.equal(twice[0, 0][0], twice[0, 1][0])


class Parents(Crops):
    """A data set whose boxes tell which process made the one that loads.

    Ctrl-C and a lost terminal reach each process that loads.
    """

    def __init__(self) -> None:
        super().__init__([], crop_size=8, rng_seed=0, plan=plan_crop)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if get_worker_info():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGHUP)
        parent = torch.full((4,), os.getppid())
        return torch.zeros(3, 8, 8, dtype=torch.uint8), parent, torch.zeros(1)


def test_a_loading_process_is_no_copy_of_one_with_threads_and_leaves_signals_to_it() -> None:
    """A terminal sends them to both, and a training saves its step at work first."""
    (own,) = Loader(Parents(), 4).epoch(0)
    (found,) = Loader(Parents(), 4, num_workers=2).epoch(0)
    assert set(own.boxes.flatten().tolist()) == {os.getppid()}
    (maker,) = set(found.boxes.flatten().tolist())
    assert maker != os.getpid()
    status = Path(f"/proc/{maker}/status").read_text()
    assert "Threads:\t1\n" in status


def test_neither_loading_processes_nor_little_shared_memory_change_a_batch(
    crops: CropDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(free: int) -> list[CropBatch]:
        monkeypatch.setattr(processes, "disk_usage", lambda _: SimpleNamespace(free=free))
        return batches(crops, epoch=1, num_workers=2)

    expected, found = loaded(processes.LITTLE_SHARED_MEMORY), loaded(64 << 20)
    assert_equal(found, expected)
    assert_equal(found, batches(crops, epoch=1))
    assert [batch.pixels.is_shared() for batch in (expected[0], found[0])] == [True, False]
    assert found[0].pixels.is_contiguous(memory_format=torch.channels_last)


class NotSent(Parents):
    """A data set whose items do not pass between processes."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return lambda: key


def test_a_batch_that_cannot_be_sent_ends_the_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "collate", list)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(Loader(NotSent(), 4, num_workers=1).epoch(0))


def test_without_semaphores_processes_are_refused_with_the_way_to_do_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(context: object, value: int = 1) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Semaphore", refuse)
    for start in (
        lambda: list(Loader(Parents(), 4, num_workers=1).epoch(0)),
        lambda: list(pool_map(str, [("a", 1)], num_workers=1)),
    ):
        with pytest.raises(ForeseenError, match=r"/dev/shm: .*Read-only.*--loader-workers 0"):
            start()
    assert list(pool_map(str, [("a", 1)], num_workers=0)) == [("a", "1")]


def test_loading_processes_meet_in_a_short_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    assert len(list(Loader(Parents(), 4, num_workers=1).epoch(0))) == 1
    assert Path(get_temp_dir()).parent == Path("/tmp")
    assert tempfile.gettempdir() == str(long)
    assert not list(long.iterdir())


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_out_each_global_batch_in_order(crops: CropDataset, world_size: int) -> None:
    whole = batches(crops)
    ranks = [batches(crops, rank=r, world_size=world_size) for r in range(world_size)]
    assert all(len(b.targets) == 4 // world_size for rank in ranks for b in rank)
    joined = [
        CropBatch(*(torch.cat(parts) for parts in zip(*of_ranks, strict=True)))
        for of_ranks in zip(*ranks, strict=True)
    ]
    assert_equal(whole, joined)


def test_an_epoch_shows_every_image_once_with_its_labels_and_epochs_differ_in_order(
    crops: CropDataset, samples: list[Sample]
) -> None:
    orders = [epoch_order(16, rng_seed=0, epoch=epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert orders[0] != epoch_order(16, rng_seed=1, epoch=0)
    expected = torch.stack([crops[0, index][0] for index in orders[0]])
    pixels, _, targets = (torch.cat(parts) for parts in zip(*batches(crops), strict=True))
    assert torch.equal(pixels, expected)
    assert targets.dtype == torch.float32
    for row, index in zip(targets, orders[0], strict=True):
        assert tuple(row.nonzero()[:, 0].tolist()) == samples[index].labels


def read_labels(sample: Sample) -> np.ndarray:
    raise AssertionError(sample)  # no crop is made


def test_the_incomplete_last_batch_is_dropped(samples: list[Sample], small: RunConfig) -> None:
    crops = CropDataset(samples[:11], 20, small.train, rng_seed=0)  # 11 images, batches of 4
    assert [len(batch.targets) for batch in batches(crops)] == [4, 4]


def test_batches_that_cannot_be_made_are_refused_with_the_remedy(
    crops: CropDataset, small: RunConfig
) -> None:
    for dataset, told in (
        (crops, "16 training images are fewer than one batch of 17; lower train.batch_size"),
        (LabelledCrops([], [], 20, TINY_DEEPLAB), "0 training .* 17; lower batch_size"),
        (AffinityCrops([], read_labels, small.train, rng_seed=0), "17; lower random_walk.batch"),
    ):
        with pytest.raises(DataError, match=told):
            Loader(dataset, 17)
    with pytest.raises(DataError, match=r"batch 4 is not divisible by 3 workers; use 1, 2, 4 wo"):
        Loader(crops, 4, world_size=3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_reads_alike_wherever_a_picture_is_loaded(
    samples: list[Sample], small: RunConfig, tmp_path: Path, num_workers: int
) -> None:
    gone = samples[0]._replace(image_path=tmp_path / "gone.jpg")
    crops = CropDataset([gone], 20, small.train, rng_seed=0)
    with pytest.raises(DataError) as error:
        next(Loader(crops, 1, num_workers=num_workers).epoch(1))
    with pytest.raises(DataError) as own:
        read_image(gone.image_path)
    assert str(error.value) == str(own.value)


# What is in a crop


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 200),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_a_crop_plan_keeps_to_the_image_and_the_crop_and_to_one_scale(
    width: int, height: int, crop: int, low: int, more: int, flip: bool, seed: int
) -> None:
    train = train_config(crop, low, low + more, horizontal_flip=flip)
    plan = plan_crop(width, height, train, np.random.default_rng(seed))
    top, left, bottom, right = plan.box
    assert 0 <= left < right <= crop
    assert 0 <= top < bottom <= crop
    assert flip or not plan.flip
    upright = train_config(crop, low, low + more, horizontal_flip=False)
    straight = plan_crop(width, height, upright, np.random.default_rng(seed)).box
    mirrored = (straight[0], crop - straight[3], straight[2], crop - straight[1])
    assert plan.box == (mirrored if plan.flip else straight)
    assert low <= max(plan.size) <= low + more
    for size, scaled, first, length in (
        (height, plan.size[0], plan.start[0], bottom - top),
        (width, plan.size[1], plan.start[1], right - left),
    ):
        # A side is rounded to whole pixels, at least 1.
        assert scaled == 1 or abs(scaled - size * max(plan.size) / max(width, height)) <= 0.5
        assert 0 <= first <= scaled - length
        # Either the whole side is in the crop, or it fills the crop.
        assert length in (scaled, crop)


def test_every_offset_of_a_window_place_of_a_small_image_size_and_direction_occurs() -> None:
    rng = np.random.default_rng(0)
    plans = [plan_crop(13, 6, train_config(10, 13, 13), rng) for _ in range(300)]
    assert {plan.flip for plan in plans} == {True, False}
    assert {plan.start[1] for plan in plans} == {0, 1, 2, 3}
    assert {plan.box[0] for plan in plans} == {0, 1, 2, 3, 4}
    assert {(plan.size, plan.start[0]) for plan in plans} == {((6, 13), 0)}
    assert {plan.box[1::2] for plan in plans} == {(0, 10)}
    plans = [plan_crop(6, 6, train_config(8, 6, 8), rng) for _ in range(100)]
    assert {plan.box[3] - plan.box[1] for plan in plans} == {6, 7, 8}


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
@pytest.mark.parametrize("seed", range(6))
def test_a_crop_is_what_pillow_resizes_cut_flipped_and_placed(
    samples: list[Sample], seed: int, name: str
) -> None:
    # As IRN does it: resize all of the image to the long side, then cut the window out.
    image = read_image(samples[seed].image_path)
    train = train_config(64, 40, 200, resize=name)
    plan = plan_crop(*image.shape[:0:-1], train, np.random.default_rng(seed))
    picture = Image.fromarray(as_array(image))
    whole = np.array(picture.resize(plan.size[::-1], Image.Resampling[name.upper()]))
    (row, column), (top, left, bottom, right) = plan.start, plan.box
    window = whole[row : row + bottom - top, column : column + right - left]
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[top:bottom, left:right] = window[:, ::-1] if plan.flip else window
    found = cut_crop(image, plan, 64).permute(1, 2, 0).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2  # both round twice: 2 is one pixel in millions
    assert (difference > 0).mean() < 0.01
    assert (difference > 1).mean() < 1e-3
    assert expected.any()


def test_channels_lie_side_by_side_from_the_crop_to_the_batch(crops: CropDataset) -> None:
    # Else the speed is gone: resizing, stacking and the network all want it so.
    assert crops[0, 0][0].permute(1, 2, 0).is_contiguous()
    batch = next(iter(Loader(crops, 4).epoch(0)))
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)


# Colour jitter, a control: other colours of the same crop


def jittered(small: RunConfig, strength: float) -> TrainConfig:
    return small.train.model_copy(update={"color_jitter": strength})


def test_a_plan_with_jitter_is_otherwise_the_one_without(small: RunConfig) -> None:
    for seed in range(20):
        plain = plan_crop(50, 70, small.train, np.random.default_rng(seed))
        other = plan_crop(50, 70, jittered(small, 0.3), np.random.default_rng(seed))
        assert plain.jitter is None
        assert other.jitter is not None
        assert other._replace(jitter=None) == plain


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_jitter_is_drawn_over_its_range_and_stays_within(small: RunConfig, strength: float) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array(
        [plan_crop(40, 40, jittered(small, strength), rng).jitter for _ in range(400)], dtype=float
    )
    offset = np.abs(drawn - [1, 1, 1, 0]) / [strength, strength, strength, strength / 3]
    assert offset.max() <= 1
    assert (offset.max(0) > 0.97).all()
    assert (np.abs((drawn - [1, 1, 1, 0]).mean(0)) < 0.1 * strength).all()


def test_each_jitter_factor_does_what_its_name_says_and_nothing_to_the_padding() -> None:
    values = np.zeros((8, 8, 3), np.uint8)
    values[:, :4], values[:, 4:] = (100, 60, 20), (40, 80, 120)
    image = torch.from_numpy(values).permute(2, 0, 1)
    plan = CropPlan((8, 8), (0, 0), (1, 1, 9, 9), flip=False)

    def crop(*jitter: float) -> np.ndarray:
        found = cut_crop(image, plan._replace(jitter=jitter), 10).permute(1, 2, 0).int().numpy()
        assert found.sum() == found[1:9, 1:9].sum()
        return found[1:9, 1:9]

    np.testing.assert_allclose(crop(0.5, 1, 1, 0), values * 0.5, atol=2)
    grey = crop(1, 1, 0, 0)  # no saturation: ITU-R 601 luma in all channels
    luma = 0.299 * values[..., 0] + 0.587 * values[..., 1] + 0.114 * values[..., 2]
    np.testing.assert_allclose(grey, luma[..., None].repeat(3, 2), atol=2)
    flat = crop(1, 0, 1, 0)  # no contrast: the mean luma everywhere
    np.testing.assert_allclose(flat, luma.mean(), atol=2)
    turned = crop(1, 1, 1, 1 / 3)  # a third of the circle: red goes to green, green to blue
    np.testing.assert_allclose(turned, np.roll(values, 1, axis=2), atol=3)
