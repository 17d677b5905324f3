"""Masks and split of the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011).

SBD stores class masks as MATLAB files, `dataset/cls/<id>.mat` with `GTcls.Segmentation`, without
borders: 0 background, 1..20 classes. Legend: H W image size in pixels.
"""

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.io import loadmat
from scipy.io.matlab import MatReadWarning

from wsss.basics.files import read_text
from wsss.basics.pool import pool_map
from wsss.basics.printable import quoted
from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.pictures.image import image_size
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import IMAGE_ID, MAX_LIST_BYTES

MAX_MAT_BYTES = 256 << 10
"""Of one .mat file; SBD's have a few kilobytes. What zlib packed is at most a thousand times as
large, so a file of this size cannot fill the memory."""


class MaskJob(NamedTuple):
    """One mask to convert: SBD's file, its picture, the PNG to write."""

    mat: Path
    image: Path
    png: Path


def read_id_list(path: Path) -> list[str]:
    """Return the ids of a split file, in file order. Raises DataError for anything but ids."""
    ids = read_text(path, MAX_LIST_BYTES, DataError).split()
    wrong = [quoted(image_id) for image_id in ids if not IMAGE_ID.fullmatch(image_id)]
    if wrong or not ids:
        raise DataError(f"{path.name}: {[*wrong, 'no ids'][0]}: expected one image id a line")
    return ids


def read_sbd_mask(path: Path) -> NDArray[np.uint8]:
    """Return the class mask of one SBD file: [H, W], 0 background, 1..20 classes.

    Raises DataError naming the file if it is no MATLAB 5 file, too large, holds no
    `GTcls.Segmentation`, or a value that is no class.
    """
    size = path.stat().st_size
    if size > MAX_MAT_BYTES:
        raise DataError(f"{path}: {size:,} bytes, allowed are {MAX_MAT_BYTES:,}; do not use it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", MatReadWarning)  # damage that scipy would skip
            content: Any = loadmat(path, variable_names=["GTcls"])
        mask = np.asarray(content["GTcls"]["Segmentation"].item())
    except Exception as error:  # scipy raises nearly anything for damaged files
        raise DataError(
            f"{path}: no MATLAB 5 file with GTcls.Segmentation ({type(error).__name__}: {error}); "
            "get the archive again"
        ) from None
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "uif":
        raise DataError(
            f"{path}: GTcls.Segmentation is {mask.dtype} {mask.shape}, expected numbers [H, W]"
        )
    wrong = mask[~np.isin(mask, np.arange(len(VOC_CLASSES) + 1))]
    if wrong.size:
        raise DataError(f"{path}: value {wrong[0]} is no class; allowed are 0..{len(VOC_CLASSES)}")
    return mask.astype(np.uint8)


def convert_masks(jobs: Collection[MaskJob], *, num_workers: int, progress: Progress) -> None:
    """Write every job's PNG in `num_workers` processes; 1: in this one.

    Raises the ForeseenError of the first job that fails, in the order of `jobs`.
    """
    task = progress.add_task("convert SBD masks", total=len(jobs))
    named = ((job.png.stem, job) for job in jobs)
    for _ in pool_map(_convert, named, num_workers=num_workers if num_workers > 1 else 0):
        progress.advance(task)


def _convert(job: MaskJob) -> None:
    mask = read_sbd_mask(job.mat)
    size = image_size(job.image)
    if mask.shape != size[::-1]:
        raise DataError(
            f"{job.mat}: {mask.shape[1]}x{mask.shape[0]} pixels, its image has {size[0]}x{size[1]}"
            "; the archives do not belong together"
        )
    write_label_png(job.png, mask)
