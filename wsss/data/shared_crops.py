"""Training crops kept for the other trials of a node: with one seed, all trials train on the same.

A crop depends on data, crop settings, seed, epoch and image, and on nothing that a table varies. So
whoever needs a crop first writes it, and the others read it: no decoding, no resizing. A file has a
slot per epoch and image. A slot is written and read without locks: its checksum says whether it is
whole, and who finds it empty, half written or damaged makes the crop anew, the same bit for bit.

Legend: S crop size.
"""

import hashlib
import inspect
import json
import os
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torchvision
from numpy.typing import NDArray

from wsss.config import TrainConfig
from wsss.data import transforms
from wsss.data.check_cache import cache_folder
from wsss.data.decoded import Place, listing_of
from wsss.data.sharing import limit_of
from wsss.data.voc import Sample

LIMIT_VARIABLE = "WSSS_CROPS_GIB"
"""Environment variable: how large all files may be together, in GiB; 0 shares nothing."""
DEFAULT_GIB = 8.0  # `short` takes .5 on 411 images, `paper` would take 39
DISK_SHARE = 1 / 4
"""Of the free disk."""
UNUSED_DAYS = 30

CROP_SETTINGS = (
    "crop_size", "min_long_side", "max_long_side", "horizontal_flip", "color_jitter",
)  # fmt: skip
"""What of the training's settings a crop depends on."""

NUM_BOX_BYTES, NUM_SUM_BYTES = 4 * 4, 4

Crop = tuple[NDArray[np.uint8], tuple[int, int, int, int]]
"""Pixels [3, S, S], and the box of the image content: top, left, bottom, right."""


class SharedCrops:
    """The crops of one list of images, one seed and one set of crop settings."""

    def __init__(self, path: Path, num_images: int, crop_size: int) -> None:
        self.path, self.num_images, self.crop_size = path, num_images, crop_size
        self._slot_bytes = slot_bytes(crop_size)
        self._writing = True
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return SharedCrops, (self.path, self.num_images, self.crop_size)

    def __del__(self) -> None:
        with suppress(OSError, AttributeError):
            os.close(self._file)

    def read(self, epoch: int, index: int) -> Crop | None:
        """Return a crop that somebody has made, or None."""
        try:
            slot = os.pread(self._file, self._slot_bytes, self._offset(epoch, index))
        except OSError:
            return None
        if len(slot) < self._slot_bytes or _checksum(slot[NUM_SUM_BYTES:]) != slot[:NUM_SUM_BYTES]:
            return None
        start = NUM_SUM_BYTES + NUM_BOX_BYTES
        top, left, bottom, right = np.frombuffer(slot[NUM_SUM_BYTES:start], "<i4").tolist()
        shape = (3, self.crop_size, self.crop_size)
        pixels = np.frombuffer(bytearray(memoryview(slot)[start:]), np.uint8).reshape(shape)
        return pixels, (top, left, bottom, right)

    def write(self, epoch: int, index: int, crop: Crop) -> None:
        """Keep a crop for the others. On a full disk this one and all later ones are not kept."""
        if not self._writing:
            return
        pixels, box = crop
        content = np.array(box, "<i4").tobytes() + pixels.tobytes()
        slot = _checksum(content) + content
        try:
            self._writing = os.pwrite(self._file, slot, self._offset(epoch, index)) == len(slot)
        except OSError:
            self._writing = False

    def _offset(self, epoch: int, index: int) -> int:
        return (epoch * self.num_images + index) * self._slot_bytes


class Sharing(NamedTuple):
    """What came of sharing the crops of a training."""

    crops: SharedCrops | None
    note: str
    """One line for the log: where they are, or why they are not shared."""


def share_crops(
    samples: list[Sample],
    train: TrainConfig,
    *,
    rng_seed: int,
    folder: Path | None = None,
    max_bytes: int | None = None,
) -> Sharing:
    """Return the file of these crops, made empty if there is none.

    folder: where files lie; by default the cache folder of this node's user. max_bytes: by default
    what LIMIT_VARIABLE says; files that were not used for longest are removed to stay below it.
    Nothing that happens to a file stops a run. Raises DataError for a limit that is no number.
    """
    max_bytes = limit_of(LIMIT_VARIABLE, DEFAULT_GIB) if max_bytes is None else max_bytes
    if max_bytes <= 0:
        return Sharing(None, f"crops are not shared: {LIMIT_VARIABLE} is 0")
    folder = folder or cache_folder().with_name("crops")
    path = folder / f"{_name(samples, train, rng_seed, folder)}.crops"
    needed = slot_bytes(train.crop_size) * len(samples) * train.epochs
    try:
        folder.mkdir(parents=True, exist_ok=True)
        limit = min(max_bytes, int(shutil.disk_usage(folder).free * DISK_SHARE) + _size(path))
        if needed > limit:
            return Sharing(
                None,
                f"crops are not shared: {needed / 2**30:.1f} GiB of them exceed "
                f"{limit / 2**30:.1f} GiB ({LIMIT_VARIABLE}, or a quarter of the free disk)",
            )
        _make_room(folder, path, max_bytes - needed)
        crops = SharedCrops(path, len(samples), train.crop_size)
        os.utime(path)
    except OSError as error:  # no rights, no space
        return Sharing(None, f"crops are not shared: {error}")
    return Sharing(crops, f"crops are shared: {path}")


def slot_bytes(crop_size: int) -> int:
    """Return how large a crop is in the file."""
    return NUM_SUM_BYTES + NUM_BOX_BYTES + 3 * crop_size**2


def _name(samples: list[Sample], train: TrainConfig, rng_seed: int, folder: Path) -> str:
    """Digest all that a crop depends on: images, settings, seed, our code and its libraries."""
    parts = {
        "images": [Place.of(samples, folder).name, listing_of(samples)],
        "settings": {name: getattr(train, name) for name in CROP_SETTINGS},
        "seed": rng_seed,
        "code": [inspect.getsource(transforms), np.__version__, PIL.__version__],
        "jitter": torchvision.__version__ if train.color_jitter else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _make_room(folder: Path, kept: Path, max_bytes: int) -> None:
    """Remove other files, longest unused first, until the rest fits or none is too old."""
    others = [path for path in folder.glob("*.crops") if path != kept]
    with suppress(FileNotFoundError):  # another process makes room, too
        others.sort(key=lambda path: path.stat().st_mtime)
        total = sum(_size(path) for path in others)
        for path in others:
            age = time.time() - path.stat().st_mtime
            if total <= max_bytes and age < UNUSED_DAYS * 86400:
                return
            total -= _size(path)
            path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """What a file takes of the disk; its holes take nothing."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(NUM_SUM_BYTES, "little")
