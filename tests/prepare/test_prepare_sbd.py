"""SBD's masks and its list: what MATLAB wrote is what the PNG holds, and nothing else gets in."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from scipy.io import savemat
from scipy.sparse import csc_array

from wsss.basics.errors import ForeseenError
from wsss.data.errors import DataError
from wsss.data.prepare.sbd import (
    MAX_UNPACKED_BYTES,
    MaskJob,
    convert_masks,
    read_id_list,
    read_sbd_mask,
)


def save_sbd(path: Path, mask: np.ndarray) -> None:
    """Write a .mat with the fields of SBD's GTcls."""
    borders = np.empty((20, 1), object)
    for k in range(20):
        borders[k, 0] = csc_array(np.zeros(mask.shape))
    present = np.setdiff1d(mask, [0]).reshape(-1, 1)
    content = {"Boundaries": borders, "Segmentation": mask, "CategoriesPresent": present}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"GTcls": content}, do_compression=True)


def jobs_of(folder: Path, num_masks: int) -> tuple[list[MaskJob], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 21, (5, 7), np.uint8) for _ in range(num_masks)]
    jobs = [
        MaskJob(*(folder / f"{n}.{kind}" for kind in ("mat", "jpg", "png")))
        for n in range(num_masks)
    ]
    for job, mask in zip(jobs, masks, strict=True):
        save_sbd(job.mat, mask)
        Image.new("RGB", (7, 5)).save(job.image)
    return jobs, masks


def convert(jobs: list[MaskJob], num_workers: int = 1) -> None:
    with Progress(disable=True) as progress:
        convert_masks(jobs, num_workers=num_workers, progress=progress)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_png_holds_the_labels_of_the_mat_under_the_palette_of_voc(
    tmp_path: Path, num_workers: int
) -> None:
    jobs, masks = jobs_of(tmp_path, 3)
    convert(jobs, num_workers)
    for job, mask in zip(jobs, masks, strict=True):
        with Image.open(job.png) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), mask)
            palette = image.getpalette() or []
    assert palette[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]  # background, aeroplane, bicycle
    assert palette[60:63] == [0, 64, 128]  # tvmonitor, as VOC paints it


def test_numbers_saved_as_doubles_are_read_as_labels(tmp_path: Path) -> None:
    save_sbd(tmp_path / "a.mat", np.array([[0.0, 20.0, 3.0]]))
    mask = read_sbd_mask(tmp_path / "a.mat")
    assert mask.tolist() == [[0, 20, 3]]
    assert mask.dtype == np.uint8


@pytest.mark.parametrize("value", [21, 255, -1, 2.5, np.nan])
def test_a_value_that_is_no_class_is_refused(tmp_path: Path, value: float) -> None:
    save_sbd(tmp_path / "a.mat", np.array([[0.0, value]]))
    with pytest.raises(DataError, match=r"a\.mat: value .* is no class; allowed are 0\.\.20"):
        read_sbd_mask(tmp_path / "a.mat")


def test_a_mat_without_the_mask_is_refused_by_name(tmp_path: Path) -> None:
    contents: list[dict[str, object]] = [
        {"other": 1},
        {"GTcls": 3},
        {"GTcls": {"Boundaries": 1}},
        {"GTcls": {"Segmentation": "x"}},
        {"GTcls": {"Segmentation": np.zeros((2, 2, 2))}},
        {"GTcls": {"Segmentation": np.zeros((0, 0))}},
    ]
    for content in contents:
        savemat(tmp_path / "a.mat", content)
        with pytest.raises(DataError, match=r"a\.mat: .*GTcls\.Segmentation"):
            read_sbd_mask(tmp_path / "a.mat")


def test_a_broken_mat_is_refused_by_name_wherever_it_is_cut(tmp_path: Path) -> None:
    save_sbd(tmp_path / "a.mat", np.zeros((5, 7), np.uint8))
    whole = (tmp_path / "a.mat").read_bytes()
    for length in [*range(0, len(whole) - 8, 40)]:
        (tmp_path / "a.mat").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.mat: "):
            read_sbd_mask(tmp_path / "a.mat")


def test_a_mat_with_changed_bytes_gives_an_error_or_a_mask_of_classes(tmp_path: Path) -> None:
    save_sbd(tmp_path / "a.mat", np.arange(35, dtype=np.uint8).reshape(5, 7) % 21)
    whole, rng = (tmp_path / "a.mat").read_bytes(), np.random.default_rng(1)
    told = []
    for _ in range(150):
        changed = bytearray(whole)
        changed[int(rng.integers(124, len(whole)))] ^= int(rng.integers(1, 256))
        (tmp_path / "a.mat").write_bytes(changed)
        try:
            assert read_sbd_mask(tmp_path / "a.mat").max() <= 20
        except DataError as error:
            told.append(str(error))
    assert len(told) > 100  # zlib's checksum finds most
    assert all("a.mat" in line for line in told)


def test_a_mat_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(MAX_UNPACKED_BYTES + 1))
    element = (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(header + element)
    with pytest.raises(DataError, match=r"a\.mat: unpacks to over 67,108,864 bytes"):
        read_sbd_mask(tmp_path / "a.mat")


def test_a_mask_that_is_broken_or_does_not_fit_its_picture_is_named(tmp_path: Path) -> None:
    jobs, _ = jobs_of(tmp_path, 3)
    Image.new("RGB", (5, 7)).save(jobs[2].image)
    with pytest.raises(ForeseenError, match=r"2\.mat: 7x5 pixels, its image has 5x7"):
        convert(jobs)
    jobs[1].mat.write_bytes(b"<html>")
    with pytest.raises(ForeseenError, match=r"1\.mat: no MATLAB 5 file"):
        convert(jobs)
    jobs[0].image.unlink()
    with pytest.raises(ForeseenError, match=r"0\.jpg: missing .*; add"):
        convert(jobs)


@pytest.mark.parametrize("content", [b"", b"../../etc/passwd\n", b"\xff\xfe"])
def test_a_list_of_anything_but_ids_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.txt: "):
        read_id_list(tmp_path / "train.txt")
