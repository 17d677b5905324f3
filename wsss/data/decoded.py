"""Images decoded: one at a time, or all of a list in a file that is mapped.

The file holds raw pixels; mapped read-only, its pages are shared by all processes of a node. An
index beside it, written last, says from which files it was made. A map serves only while size and
times of every image, and of the map itself, are those of its index. sharing.py makes them.
"""

import hashlib
import itertools
import json
import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.data.voc import BROKEN_IMAGE, IMAGE_FORMATS, DataError, Sample

VERSION = 1
"""Part of every index. Raise it when what a map holds, or how, changes."""


def read_rgb(sample: Sample) -> Image.Image:
    """Decode an image as RGB. Raises DataError naming a missing or broken file."""
    try:
        with Image.open(sample.image_path, formats=IMAGE_FORMATS) as image:
            return image.convert("RGB")
    except BROKEN_IMAGE as error:
        raise DataError(
            f"{sample.image_path}: cannot be decoded ({error}); replace the file"
        ) from None


@dataclass(frozen=True)
class Place:
    """Where the map of a list of images lies, whatever the images are at the time."""

    folder: Path
    name: str

    @classmethod
    def of(cls, samples: list[Sample], folder: Path) -> "Place":
        """Return the place of a list of images: equal paths in equal order have one."""
        paths = "\n".join(os.path.abspath(sample.image_path) for sample in samples)  # noqa: PTH100
        return cls(folder, hashlib.sha256(paths.encode()).hexdigest()[:16])

    @property
    def pixels(self) -> Path:
        """All images, one after the other, each [H, W, 3] uint8."""
        return self.folder / f"{self.name}.pixels"

    @property
    def index(self) -> Path:
        """What the pixels were made from, as JSON."""
        return self.folder / f"{self.name}.json"

    @property
    def lock(self) -> Path:
        """Held by the process that makes the map."""
        return self.folder / f"{self.name}.lock"


class DecodedImages:
    """The decoded images of a list of samples. Pickled, it is mapped anew where it is unpickled."""

    def __init__(self, place: Place, listing: str, sizes: list[tuple[int, int]]) -> None:
        self._place, self._listing, self._sizes = place, listing, sizes
        lengths = (3 * width * height for width, height in sizes)
        self._starts = [0, *itertools.accumulate(lengths)]
        with place.pixels.open("rb") as file:
            self._stamp = stamp_of(os.fstat(file.fileno()))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(mapped, np.uint8)

    def __len__(self) -> int:
        return len(self._sizes)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _reopened, (self._place, self._listing)

    @property
    def num_bytes(self) -> int:
        """How large the map is."""
        return self._starts[-1]

    def image(self, index: int) -> Image.Image:
        """Return an image as `read_rgb` does, a copy of the map's pixels in Pillow's layout."""
        size, start, stop = self._sizes[index], *self._starts[index : index + 2]
        return Image.frombuffer("RGB", size, self._bytes[start:stop], "raw", "RGB", 0, 1)

    def is_of(self, samples: list[Sample]) -> bool:
        """Whether these are the images it was made from, by path and in this order."""
        return Place.of(samples, self._place.folder) == self._place

    def _is_whole(self, stamp: list[int]) -> bool:
        return self._stamp == stamp and len(self._bytes) == self.num_bytes


def listing_of(samples: list[Sample]) -> str:
    """Digest size and times of every image; one that is missing counts as such."""
    digest = hashlib.sha256()
    for sample in samples:
        try:
            stamp = stamp_of(sample.image_path.stat())
        except OSError:
            stamp = []
        digest.update(f"{sample.image_path.name} {stamp}\n".encode())
    return digest.hexdigest()


def stamp_of(stat: os.stat_result) -> list[int]:
    """What a change of a file's bytes changes; the last is hard to set back."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def load_map(place: Place, listing: str) -> DecodedImages | None:
    """Map what is there if it is whole and of these files, and note that it was used."""
    try:
        index = json.loads(place.index.read_text(encoding="utf-8"))
        if (index["version"], index["listing"]) != (VERSION, listing):
            return None
        images = DecodedImages(place, listing, [(int(w), int(h)) for w, h in index["sizes"]])
        if not images._is_whole(index["stamp"]):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with suppress(OSError):  # of another user, or a read-only folder
        os.utime(place.index)
    return images


def _reopened(place: Place, listing: str) -> DecodedImages:
    images = load_map(place, listing)
    if images is None:
        raise DataError(f"{place.pixels}: changed during the run; start the run again")
    return images
