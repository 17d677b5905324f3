"""Crops kept for other trials: the same bits, never of other settings, never damaged."""

import errno
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.config import RunConfig, TrainConfig
from wsss.data import loading, shared_crops
from wsss.data.loading import CropBatch, CropDataset, CropLoader
from wsss.data.shared_crops import CROP_SETTINGS, SharedCrops, share_crops, slot_bytes
from wsss.data.transforms import cut_crop, plan_crop
from wsss.data.voc import DataError, Sample, VocDataset

SEED = 3

LOAD = """
import sys
from pathlib import Path
from wsss.config import TrainConfig
from wsss.data.loading import CropDataset
from wsss.data.shared_crops import share_crops
from wsss.data.voc import VocDataset

samples = VocDataset(Path(sys.argv[1])).samples("train_aug")
train = TrainConfig.model_validate_json(sys.argv[3])
kept = share_crops(samples, train, rng_seed=3, folder=Path(sys.argv[2])).crops
crops = CropDataset(samples, 20, train, rng_seed=3, kept=kept)
for epoch in range(3):
    for index in range(len(samples)):
        crops[epoch, index]
"""
"""Loads three epochs of argv[1] with crops in argv[2] and the settings of argv[3]."""


@pytest.fixture
def samples(drawn: Path) -> list[Sample]:
    return VocDataset(drawn).samples("train_aug")


@pytest.fixture
def train(small: RunConfig) -> TrainConfig:
    return small.train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "crops"


def shared(
    samples: list[Sample], train: TrainConfig, folder: Path, seed: int = SEED
) -> SharedCrops:
    found = share_crops(samples, train, rng_seed=seed, folder=folder)
    assert found.crops is not None, found.note
    return found.crops


def epoch_of(
    samples: list[Sample], train: TrainConfig, kept: SharedCrops | None, **loader: Any
) -> list[CropBatch]:
    crops = CropDataset(samples, 20, train, rng_seed=SEED, kept=kept)
    return list(CropLoader(crops, **loader).epoch(1))


def assert_equal(found: list[CropBatch], expected: list[CropBatch]) -> None:
    assert len(found) == len(expected) > 0
    for first, second in zip(found, expected, strict=True):
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype
            assert one.stride() == other.stride()


@pytest.fixture
def making_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a crop that has to be made is an error."""

    def refuse(sample: Sample) -> None:
        raise AssertionError(f"{sample.image_id} is decoded")

    monkeypatch.setattr(loading, "read_rgb", refuse)


# The same bits


@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize("loader", [{}, {"num_workers": 2}, {"ahead": True}])
def test_made_and_read_crops_are_equal_bit_for_bit(
    samples: list[Sample], train: TrainConfig, folder: Path, jitter: float, loader: dict[str, Any]
) -> None:
    train = train.model_copy(update={"color_jitter": jitter})
    expected = epoch_of(samples, train, None)
    assert_equal(epoch_of(samples, train, shared(samples, train, folder), **loader), expected)
    assert_equal(epoch_of(samples, train, shared(samples, train, folder), **loader), expected)


@pytest.mark.usefixtures("making_fails")
def test_a_second_training_makes_no_crop(
    samples: list[Sample], train: TrainConfig, folder: Path, drawn: Path
) -> None:
    command = [sys.executable, "-c", LOAD, str(drawn), str(folder), train.model_dump_json()]
    subprocess.run(command, check=True)
    found = epoch_of(samples, train, shared(samples, train, folder))
    assert all(batch.pixels.any() for batch in found)
    with pytest.raises(AssertionError, match="is decoded"):  # of an epoch that nobody has loaded
        CropDataset(samples, 20, train, rng_seed=SEED, kept=shared(samples, train, folder))[3, 0]


def test_two_processes_that_write_at_once_leave_whole_crops(
    samples: list[Sample], train: TrainConfig, folder: Path, drawn: Path
) -> None:
    command = [sys.executable, "-c", LOAD, str(drawn), str(folder), train.model_dump_json()]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    kept = shared(samples, train, folder)
    plain = CropDataset(samples, 20, train, rng_seed=SEED)
    for epoch in range(3):
        for index in range(len(samples)):
            found = kept.read(epoch, index)
            assert found is not None
            pixels, box, _ = plain[epoch, index]
            np.testing.assert_array_equal(found[0], pixels.numpy())
            assert list(found[1]) == box.tolist()


def test_a_crop_read_from_the_file_may_be_written_to(
    samples: list[Sample], train: TrainConfig, folder: Path
) -> None:
    kept = shared(samples, train, folder)
    for _ in range(2):
        pixels, _, _ = CropDataset(samples, 20, train, rng_seed=SEED, kept=kept)[0, 0]
        pixels.fill_(7)  # a warning, so an error, if it were read-only memory
    expected = CropDataset(samples, 20, train, rng_seed=SEED)[0, 0][0]
    found = kept.read(0, 0)
    assert found is not None
    np.testing.assert_array_equal(found[0], expected.numpy())


def test_a_pickled_file_is_opened_anew(
    samples: list[Sample], train: TrainConfig, folder: Path
) -> None:
    kept = shared(samples, train, folder)
    epoch_of(samples, train, kept)
    again = pickle.loads(pickle.dumps(kept))
    first, second = kept.read(1, 0), again.read(1, 0)
    assert first is not None
    np.testing.assert_array_equal(first[0], second[0])


# Other crops, other files


@pytest.mark.parametrize(
    "change",
    [{"crop_size": 40}, {"min_long_side": 50}, {"max_long_side": 97}, {"color_jitter": 0.2},
     {"horizontal_flip": False}],
)  # fmt: skip
def test_other_crop_settings_have_another_file(
    samples: list[Sample], train: TrainConfig, folder: Path, change: dict[str, Any]
) -> None:
    other = train.model_copy(update=change)
    assert shared(samples, train, folder).path != shared(samples, other, folder).path


def test_other_training_settings_share_the_file(
    samples: list[Sample], train: TrainConfig, folder: Path
) -> None:
    other = train.model_copy(update={"lr": 0.5, "epochs": 7, "batch_size": 2})
    assert shared(samples, train, folder).path == shared(samples, other, folder).path


def test_a_crop_depends_on_no_other_setting(samples: list[Sample], train: TrainConfig) -> None:
    class Watched:
        def __init__(self) -> None:
            self.asked: set[str] = set()

        def __getattr__(self, name: str) -> Any:
            self.asked.add(name)
            return getattr(train, name)

    watched: Any = Watched()
    image = loading.read_rgb(samples[0])
    cut_crop(image, plan_crop(*image.size, watched, np.random.default_rng(0)), train.crop_size)
    assert watched.asked == set(CROP_SETTINGS)


def test_another_seed_other_images_or_a_changed_one_have_another_file(
    samples: list[Sample], train: TrainConfig, folder: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.jpg"
    changed.write_bytes(samples[0].image_path.read_bytes())
    mine = [samples[0]._replace(image_path=changed), *samples[1:]]
    paths = [
        shared(samples, train, folder).path,
        shared(samples, train, folder, seed=4).path,
        shared(samples[::-1], train, folder).path,
        shared(mine, train, folder).path,
    ]
    os.utime(changed, ns=(0, 0))
    paths.append(shared(mine, train, folder).path)
    assert len(set(paths)) == 5


def test_other_code_has_another_file(
    samples: list[Sample], train: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shared(samples, train, folder).path
    monkeypatch.setattr(shared_crops.inspect, "getsource", lambda _: "def cut_crop(): ...")
    assert shared(samples, train, folder).path != first


# Damage


@pytest.mark.parametrize("damage", ["first byte", "box", "last byte", "cut", "emptied"])
def test_a_damaged_crop_is_made_anew(
    samples: list[Sample], train: TrainConfig, folder: Path, damage: str
) -> None:
    kept = shared(samples, train, folder)
    expected = epoch_of(samples, train, kept)
    size = slot_bytes(train.crop_size)
    start = (len(samples) + 2) * size  # epoch 1, image 2
    place = {"first byte": start, "box": start + 5, "last byte": start + size - 1}.get(damage)
    with kept.path.open("r+b") as file:
        if place is not None:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        else:
            file.truncate(start + size // 2 if damage == "cut" else 0)
    assert kept.read(1, 2) is None
    assert_equal(epoch_of(samples, train, kept), expected)
    assert kept.read(1, 2) is not None


@pytest.mark.parametrize("call", ["pwrite", "pread"])
def test_a_failing_disk_costs_time_only(
    samples: list[Sample], train: TrainConfig, folder: Path, call: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = epoch_of(samples, train, None)
    calls = []

    def fail(*_: Any) -> int:
        calls.append(call)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shared_crops.os, call, fail)
    assert_equal(epoch_of(samples, train, shared(samples, train, folder)), expected)
    assert len(calls) == (1 if call == "pwrite" else len(samples) // train.batch_size * 4)


def test_a_folder_that_cannot_be_made_is_a_note(
    samples: list[Sample], train: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    found = share_crops(samples, train, rng_seed=0, folder=tmp_path / "file" / "crops")
    assert found.crops is None
    assert "crops are not shared: " in found.note


# Limits


def test_crops_beyond_the_limit_are_not_shared(
    samples: list[Sample], train: TrainConfig, folder: Path
) -> None:
    needed = slot_bytes(train.crop_size) * len(samples) * train.epochs
    found = share_crops(samples, train, rng_seed=0, folder=folder, max_bytes=needed - 1)
    assert found.crops is None
    assert "WSSS_CROPS_GIB" in found.note
    assert share_crops(samples, train, rng_seed=0, folder=folder, max_bytes=needed).crops


def test_zero_shares_nothing_and_no_number_is_refused(
    samples: list[Sample], train: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CROPS_GIB", "0")
    assert share_crops(samples, train, rng_seed=0, folder=folder).crops is None
    assert not folder.exists()
    for words in ("much", "inf", "nan"):
        monkeypatch.setenv("WSSS_CROPS_GIB", words)
        with pytest.raises(
            DataError, match=r"WSSS_CROPS_GIB='.*' is not a number of GiB; give one"
        ):
            share_crops(samples, train, rng_seed=0, folder=folder)


def test_files_unused_for_longest_make_room(
    samples: list[Sample], train: TrainConfig, folder: Path
) -> None:
    paths = []
    for seed in range(3):
        kept = shared(samples, train, folder, seed=seed)
        crops = CropDataset(samples, 20, train, rng_seed=seed, kept=kept)
        for epoch in range(train.epochs):
            for index in range(len(samples)):
                crops[epoch, index]
        paths.append(kept.path)
    for path, age in zip(paths, (20, 30, 10), strict=True):
        os.utime(path, (time.time() - age, time.time() - age))
    one = paths[0].stat().st_blocks * 512
    share_crops(samples, train, rng_seed=3, folder=folder, max_bytes=3 * one)
    assert [path.exists() for path in paths] == [True, False, True]


def test_files_unused_for_a_month_are_removed(
    samples: list[Sample], train: TrainConfig, folder: Path
) -> None:
    first = shared(samples, train, folder, seed=0).path
    old = time.time() - 31 * 86400
    os.utime(first, (old, old))
    second = shared(samples, train, folder, seed=1).path
    assert not first.exists()
    assert second.exists()
