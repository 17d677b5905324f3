"""Masks and split of the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011).

SBD stores class masks as MATLAB files, `dataset/cls/<id>.mat` with `GTcls.Segmentation`, without
borders: 0 background, 1..20 classes. Legend: H W image size in pixels.
"""

import warnings
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from scipy.io import loadmat
from scipy.io.matlab import MatReadWarning

from wsss.basics.pool import pool_map
from wsss.basics.printable import quoted
from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.pictures.image import image_size
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import IMAGE_ID

MAX_MAT_BYTES = 4 << 20
"""Of one .mat file; SBD's have a few kilobytes."""
MAX_UNPACKED_BYTES = 64 << 20
"""Of one .mat file's content, which may be a thousand times as large as the file."""
MAT_HEADER, MAT_COMPRESSED = 128, 15
"""Of MATLAB 5 files: bytes before the first element, and the type of zlib elements."""


class MaskJob(NamedTuple):
    """One mask to convert: SBD's file, its picture, the PNG to write."""

    mat: Path
    image: Path
    png: Path


def read_id_list(path: Path) -> list[str]:
    """Return the ids of a split file, in file order. Raises DataError for anything but ids."""
    try:
        ids = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        raise DataError(f"{path.name}: not in the archive; get SBD's benchmark.tgz") from None
    except UnicodeDecodeError:
        raise DataError(f"{path.name}: not UTF-8 text; get the archive again") from None
    wrong = [image_id for image_id in ids if not IMAGE_ID.fullmatch(image_id)]
    if wrong or not ids:
        raise DataError(
            f"{path.name}: {quoted(wrong[0]) if wrong else 'no ids'}: expected one image id a line"
        )
    return ids


def read_sbd_mask(path: Path) -> NDArray[np.uint8]:
    """Return the class mask of one SBD file: [H, W], 0 background, 1..20 classes.

    Raises DataError naming the file if it is no MATLAB 5 file, too large, holds no
    `GTcls.Segmentation`, or a value that is no class.
    """
    try:
        _refuse_bomb(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", MatReadWarning)  # damage that scipy would skip
            content: Any = loadmat(path, variable_names=["GTcls"])
        mask = np.asarray(content["GTcls"]["Segmentation"].item())
    except DataError:
        raise
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


def _refuse_bomb(path: Path) -> None:
    """Raise DataError if the file, or what its zlib elements unpack to, is too large."""
    size = path.stat().st_size
    if size > MAX_MAT_BYTES:
        raise DataError(f"{path}: {size:,} bytes, allowed are {MAX_MAT_BYTES:,}; do not use it")
    data = path.read_bytes()
    order = "big" if data[126:128] == b"MI" else "little"
    place, unpacked = MAT_HEADER, 0
    while place + 8 <= len(data):
        kind = int.from_bytes(data[place : place + 4], order)  # type: ignore[arg-type]
        length = int.from_bytes(data[place + 4 : place + 8], order)  # type: ignore[arg-type]
        if kind == MAT_COMPRESSED:
            room = MAX_UNPACKED_BYTES - unpacked + 1
            element = data[place + 8 : place + 8 + length]
            unpacked += len(zlib.decompressobj().decompress(element, room))
            if unpacked > MAX_UNPACKED_BYTES:
                raise DataError(
                    f"{path}: unpacks to over {MAX_UNPACKED_BYTES:,} bytes; do not use it"
                )
        place += 8 + length
