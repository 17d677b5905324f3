"""SBD's masks and its list: what MATLAB wrote is what the PNG holds, and nothing else gets in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import damaged
from PIL import Image
from rich.progress import Progress
from scipy.io import savemat
from scipy.sparse import csc_array

from wsss.basics.errors import ForeseenError
from wsss.data.errors import DataError
from wsss.data.prepare.sbd import MAX_MAT_BYTES, MaskJob, convert_masks, read_id_list, read_sbd_mask


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


def test_the_png_holds_the_labels_of_the_mat(tmp_path: Path) -> None:
    jobs, masks = jobs_of(tmp_path, 3)
    convert(jobs, num_workers=2)
    for job, mask in zip(jobs, masks, strict=True):
        with Image.open(job.png) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), mask)


def test_numbers_saved_as_doubles_are_read_as_labels(tmp_path: Path) -> None:
    save_sbd(tmp_path / "a.mat", np.array([[0.0, 20.0, 3.0]]))
    mask = read_sbd_mask(tmp_path / "a.mat")
    assert mask.tolist() == [[0, 20, 3]]
    assert mask.dtype == np.uint8


NO_MASKS: list[Any] = ["x", np.zeros((2, 2, 2)), np.zeros((0, 0))]
NO_CLASSES: list[Any] = [np.array([[0, value]]) for value in (21, 255, -1, 2.5, np.nan)]


@pytest.mark.parametrize(
    "content",
    [{"other": 1}, {"GTcls": 3}, {"GTcls": {"Boundaries": 1}}]
    + [{"GTcls": {"Segmentation": mask}} for mask in NO_MASKS + NO_CLASSES],
)
def test_a_mat_without_a_mask_of_classes_is_refused_by_name(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    savemat(tmp_path / "a.mat", content)
    told = r"a\.mat: (.*GTcls\.Segmentation|value .* is no class; allowed are 0\.\.20)"
    with pytest.raises(DataError, match=told):
        read_sbd_mask(tmp_path / "a.mat")


def test_a_damaged_mat_gives_an_error_by_name_or_a_mask_of_classes(tmp_path: Path) -> None:
    save_sbd(tmp_path / "a.mat", np.arange(35, dtype=np.uint8).reshape(5, 7) % 21)
    whole, told = (tmp_path / "a.mat").read_bytes(), []
    for seed in range(250):
        (tmp_path / "a.mat").write_bytes(whole[:124] + damaged(whole[124:], seed))
        try:
            assert read_sbd_mask(tmp_path / "a.mat").max() <= 20
        except DataError as error:
            told.append(str(error))
    assert len(told) > 100  # zlib's checksum finds most
    assert all("a.mat" in line for line in told)


def test_a_mat_that_could_unpack_to_gigabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(bytes(MAX_MAT_BYTES + 1))
    with pytest.raises(DataError, match=r"a\.mat: 262,145 bytes, allowed are 262,144; do not"):
        read_sbd_mask(tmp_path / "a.mat")


def test_a_mask_that_is_broken_or_does_not_fit_its_picture_is_named(tmp_path: Path) -> None:
    jobs, _ = jobs_of(tmp_path, 3)
    Image.new("RGB", (5, 7)).save(jobs[2].image)
    with pytest.raises(ForeseenError, match=r"2\.mat: 7x5 pixels, its image has 5x7"):
        convert(jobs)
    jobs[1].mat.write_bytes(b"<html>")
    with pytest.raises(ForeseenError, match=r"1\.mat: no MATLAB 5 file"):
        convert(jobs)


@pytest.mark.parametrize("content", [b"", b"../../etc/passwd\n", b"\xff\xfe"])
def test_a_list_of_anything_but_ids_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.txt: "):
        read_id_list(tmp_path / "train.txt")
