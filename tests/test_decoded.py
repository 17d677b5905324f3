"""Decoded images shared on a node: the same crops, never a stale or half a map, never a stop."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.config import RunConfig
from wsss.data import sharing
from wsss.data.decoded import DecodedImages, Place, read_rgb
from wsss.data.loading import CropDataset, CropLoader
from wsss.data.segmentation_loading import LabelledCrops
from wsss.data.sharing import share_decoded
from wsss.data.voc import DataError, Sample, VocDataset
from wsss.segmentation_presets import TINY_DEEPLAB

SHARE = """
import os, signal, sys
from pathlib import Path
from wsss.data import sharing
from wsss.data.voc import VocDataset

seen, read = [], sharing.read_rgb

def counted(sample):
    seen.append(sample)
    if len(seen) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(sample)

sharing.read_rgb = counted
samples = VocDataset(Path(sys.argv[1])).samples("train_aug")
print(sharing.share_decoded(samples, folder=Path(sys.argv[2])).note)
"""
"""Shares the images of argv[1] in argv[2]; kills itself at the argv[3]th of them."""


@pytest.fixture
def copy(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "voc"))


@pytest.fixture
def samples(copy: Path) -> list[Sample]:
    return VocDataset(copy).samples("train_aug")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def decoded_paths(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that were decoded for a map, in order."""
    seen: list[Path] = []

    def counted(sample: Sample) -> Image.Image:
        seen.append(sample.image_path)
        return read_rgb(sample)

    monkeypatch.setattr(sharing, "read_rgb", counted)
    return seen


def shared(samples: list[Sample], folder: Path) -> DecodedImages:
    found = share_decoded(samples, folder=folder)
    assert found.images is not None, found.note
    return found.images


def assert_serves(images: DecodedImages, samples: list[Sample]) -> None:
    """Compare every pixel with Pillow's own reading of the file."""
    assert len(images) == len(samples)
    for index, sample in enumerate(samples):
        with Image.open(sample.image_path) as image:
            expected = np.array(image.convert("RGB"))
        np.testing.assert_array_equal(np.array(images.image(index)), expected)


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()} - {".lock"}


# The same pixels


def test_a_map_holds_every_pixel_as_it_is_decoded(samples: list[Sample], folder: Path) -> None:
    grey = samples[0].image_path.with_name("grey.png")
    Image.linear_gradient("L").resize((7, 3)).save(grey)
    see_through = grey.with_name("see_through.png")
    Image.radial_gradient("L").resize((1, 9)).convert("RGBA").save(see_through)
    samples += [samples[0]._replace(image_path=path) for path in (grey, see_through)]
    assert_serves(shared(samples, folder), samples)
    assert_serves(shared(samples, folder), samples)  # now found, not made


@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize("loader", [{}, {"num_workers": 2}, {"ahead": True}])
def test_crops_are_equal_bit_for_bit_with_a_map_and_without(
    samples: list[Sample], folder: Path, small: RunConfig, jitter: float, loader: dict[str, int]
) -> None:
    train = small.train.model_copy(update={"color_jitter": jitter})
    plain = CropDataset(samples, 20, train, rng_seed=3)
    mapped = CropDataset(samples, 20, train, rng_seed=3, decoded=shared(samples, folder))
    pairs = zip(CropLoader(plain).epoch(1), CropLoader(mapped, **loader).epoch(1), strict=True)
    for first, second in pairs:
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one, other)
        assert first.pixels.any()
        assert first.pixels.stride() == second.pixels.stride() == (3 * 48 * 48, 48 * 48, 48, 1)


def test_labelled_crops_are_equal_with_a_map_and_without(
    copy: Path, samples: list[Sample], folder: Path
) -> None:
    labels, images = copy / "SegmentationClassAug", shared(samples, folder)
    plain = LabelledCrops(samples, labels, 20, TINY_DEEPLAB)
    mapped = LabelledCrops(samples, labels, 20, TINY_DEEPLAB, decoded=images)
    for index in range(len(samples)):
        for one, other in zip(plain[1, index], mapped[1, index], strict=True):
            assert torch.equal(one, other)


def test_a_map_of_other_images_is_refused(
    copy: Path, samples: list[Sample], folder: Path, small: RunConfig
) -> None:
    images = shared(samples, folder)
    other = [*samples[1:], samples[0]]
    with pytest.raises(ValueError, match="decoded images of other samples"):
        CropDataset(other, 20, small.train, rng_seed=0, decoded=images)
    with pytest.raises(ValueError, match="decoded images of other samples"):
        LabelledCrops(other, copy / "SegmentationClassAug", 20, TINY_DEEPLAB, decoded=images)


# Made once


def test_images_are_decoded_once_and_found_by_the_next(
    samples: list[Sample], folder: Path, decoded_paths: list[Path]
) -> None:
    first, second = (share_decoded(samples, folder=folder) for _ in range(2))
    assert decoded_paths == [sample.image_path for sample in samples]
    assert "16 in " in first.note
    assert "made in" in first.note
    assert "found" in second.note
    assert files(folder) == {".pixels", ".json"}


def test_of_processes_that_start_together_one_decodes_and_all_share(
    copy: Path, samples: list[Sample], folder: Path
) -> None:
    command = [sys.executable, "-c", SHARE, str(copy), str(folder), "0"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    notes = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum("made in" in note for note in notes) == 1
    assert sum("found" in note for note in notes) == 2
    assert_serves(shared(samples, folder), samples)


def test_a_map_is_mapped_anew_where_it_is_unpickled(samples: list[Sample], folder: Path) -> None:
    images = shared(samples, folder)
    sent = pickle.dumps(images)
    assert len(sent) < 1000  # no pixel travels
    assert_serves(pickle.loads(sent), samples)
    Place.of(samples, folder).index.unlink()
    with pytest.raises(DataError, match="changed during the run; start the run again"):
        pickle.loads(sent)


def test_by_default_maps_lie_in_the_cache_folder(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "chosen"))
    assert share_decoded(samples).images is not None
    assert files(tmp_path / "chosen" / "decoded") == {".pixels", ".json"}


# Never stale, never half


TICK = 0.02
"""Seconds; a file system's clock may stand still for 10 ms."""


def change(path: Path, what: str) -> None:
    time.sleep(TICK)
    stat, content = path.stat(), path.read_bytes()
    if what == "another picture":
        Image.new("RGB", (30, 20), (9, 200, 30)).save(path)
    elif what == "one byte, size and time kept":
        path.write_bytes(content[:-2] + b"\xff\xd9")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif what == "later":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.mark.parametrize("what", ["another picture", "one byte, size and time kept", "later"])
def test_a_changed_image_is_decoded_anew(
    samples: list[Sample], folder: Path, decoded_paths: list[Path], what: str
) -> None:
    before = shared(samples, folder)
    old = np.array(before.image(5))
    change(samples[5].image_path, what)
    assert_serves(shared(samples, folder), samples)
    assert len(decoded_paths) == 2 * len(samples)
    np.testing.assert_array_equal(np.array(before.image(5)), old)  # who has it keeps it


def damage(place: Place, what: str) -> None:
    time.sleep(TICK)
    content = place.pixels.read_bytes()
    index = json.loads(place.index.read_text())
    if what == "map cut short":
        place.pixels.write_bytes(content[:-1])
    elif what == "map empty":
        place.pixels.write_bytes(b"")
    elif what == "one pixel, size and time kept":
        stat = place.pixels.stat()
        place.pixels.write_bytes(bytes([content[0] ^ 255]) + content[1:])
        os.utime(place.pixels, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif what == "no map":
        place.pixels.unlink()
    elif what == "no index":
        place.index.unlink()
    elif what == "index cut short":
        place.index.write_text(place.index.read_text()[:-9])
    elif what == "an image missing in the index":
        place.index.write_text(json.dumps(index | {"sizes": index["sizes"][:-1]}))
    elif what == "another version":
        place.index.write_text(json.dumps(index | {"version": 0}))


@pytest.mark.parametrize(
    "what",
    ["map cut short", "map empty", "one pixel, size and time kept", "no map", "no index",
     "index cut short", "an image missing in the index", "another version"],
)  # fmt: skip
def test_a_damaged_map_is_made_anew(
    samples: list[Sample], folder: Path, decoded_paths: list[Path], what: str
) -> None:
    shared(samples, folder)
    damage(Place.of(samples, folder), what)
    assert_serves(shared(samples, folder), samples)
    assert len(decoded_paths) == 2 * len(samples)


def test_a_process_killed_while_it_decodes_leaves_no_map_and_no_lock(
    copy: Path, samples: list[Sample], folder: Path
) -> None:
    command = [sys.executable, "-c", SHARE, str(copy), str(folder), "9"]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert files(folder) == {".partial"}
    assert_serves(shared(samples, folder), samples)
    assert files(folder) == {".pixels", ".json"}


def test_images_that_change_while_they_are_read_are_not_shared(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(sample: Sample) -> Image.Image:
        change(samples[0].image_path, "later")
        return read_rgb(sample)

    monkeypatch.setattr(sharing, "read_rgb", slow)
    found = share_decoded(samples, folder=folder)
    assert found.images is None
    assert "files changed while they were read" in found.note
    assert files(folder) == set()


@pytest.mark.parametrize("what", ["cut short", "no picture", "gone"])
def test_a_damaged_image_is_refused_as_decoding_refuses_it(
    samples: list[Sample], folder: Path, what: str
) -> None:
    path = samples[7].image_path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if what == "cut short" else b"no picture")
    if what == "gone":
        path.unlink()
    with pytest.raises(DataError) as expected:
        read_rgb(samples[7])
    with pytest.raises(DataError) as found:
        share_decoded(samples, folder=folder)
    assert str(found.value) == str(expected.value)
    assert not folder.exists() or files(folder) == set()


# Limits


def test_images_over_a_limit_are_not_shared_and_the_limit_is_named(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * sum(image.width * image.height for image in map(read_rgb, samples))

    def note(**limit: int) -> str:
        found = share_decoded(samples, folder=folder, **limit)
        assert found.images is None
        assert not folder.exists()
        return found.note

    assert "their 16 images exceed" in note(max_bytes=needed - 1)
    assert "the most that a map may take" in note(max_bytes=needed - 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, needed))
        assert "a quarter of the free disk" in note()
    with monkeypatch.context() as patch:
        patch.setattr(os, "sysconf", lambda name: 1)
        assert "half of the memory" in note()
    assert share_decoded(samples, folder=folder, max_bytes=needed).images is not None


def test_the_environment_sets_the_limit_and_turns_sharing_off(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_DECODED_GIB", "0")
    assert share_decoded(samples, folder=folder).note.endswith("WSSS_DECODED_GIB is 0")
    monkeypatch.setenv("WSSS_DECODED_GIB", "1e-5")  # 10,737 bytes
    assert "exceed" in share_decoded(samples, folder=folder).note
    monkeypatch.setenv("WSSS_DECODED_GIB", "much")
    with pytest.raises(DataError, match="WSSS_DECODED_GIB='much' is not a number of GiB; give one"):
        share_decoded(samples, folder=folder)
    monkeypatch.setenv("WSSS_DECODED_GIB", "")
    assert share_decoded(samples, folder=folder).images is not None


def test_a_folder_that_cannot_be_written_costs_only_the_sharing(
    samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    found = share_decoded(samples, folder=tmp_path / "file" / "decoded")
    assert found.images is None
    assert "Not a directory" in found.note


def test_a_full_disk_costs_only_the_sharing_and_leaves_nothing(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = share_decoded(samples, folder=folder)
    assert found.images is None
    assert "No space left on device" in found.note
    assert files(folder) == set()


def test_maps_unused_for_a_month_go_when_another_is_made(
    samples: list[Sample], folder: Path
) -> None:
    lists = [samples[:4], samples[4:8], samples[8:]]
    old, recent, new = (Place.of(part, folder) for part in lists)
    shared(lists[0], folder)
    shared(lists[1], folder)
    month_ago = time.time() - 31 * 86400
    for file in folder.iterdir():
        os.utime(file, (month_ago, month_ago))
    abandoned = folder / "abandoned.partial"
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (month_ago, month_ago))
    recent.index.touch()  # as opening does
    shared(lists[2], folder)
    assert recent.index.exists()
    assert recent.pixels.exists()
    assert new.index.exists()
    assert not old.index.exists()
    assert not old.pixels.exists()
    assert not abandoned.exists()


def test_opening_a_map_counts_as_use(samples: list[Sample], folder: Path) -> None:
    shared(samples, folder)
    index = Place.of(samples, folder).index
    os.utime(index, (0, 0))
    shared(samples, folder)
    assert index.stat().st_mtime > time.time() - 600
