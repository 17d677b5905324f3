"""Decodes all images of a split once for every process of a node, into a map (decoded.py).

Whoever comes first decodes, the others wait; what changed since is decoded anew. What a map serves
is what decoding gives, bit for bit. A process that is killed meanwhile leaves a partial file, which
the next one overwrites. Making a map removes those that no run has opened for UNUSED_DAYS.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from PIL import Image

from wsss.data.check_cache import cache_folder
from wsss.data.decoded import (
    VERSION,
    DecodedImages,
    Place,
    listing_of,
    load_map,
    read_rgb,
    stamp_of,
)
from wsss.data.voc import BROKEN_IMAGE, IMAGE_FORMATS, DataError, Sample

LIMIT_VARIABLE = "WSSS_DECODED_GIB"
"""Environment variable: how large a map may be, in GiB; 0 shares nothing. By default 8."""
DEFAULT_GIB = 8.0  # train_aug of VOC takes 5.4
DISK_SHARE, MEMORY_SHARE = 1 / 4, 1 / 2
"""Of the free disk and of all memory. Beyond memory, pages are read again and again: 0.5 MB from a
disk take as long as decoding the 0.1 MB of a JPEG."""
UNUSED_DAYS = 30
WAIT_SECONDS = 30 * 60.0
"""For another process to decode; then go on without a map."""


class Shared(NamedTuple):
    """What came of sharing the decoded images of a split."""

    images: DecodedImages | None
    """None: every crop decodes its image."""
    note: str
    """One line for the log: what is shared or why nothing is."""


def share_decoded(
    samples: list[Sample], *, folder: Path | None = None, max_bytes: int | None = None
) -> Shared:
    """Return the images' map, made first if there is none, unless it is larger than it may be.

    folder: where maps lie; by default the cache folder of this node's user. max_bytes: by default
    what LIMIT_VARIABLE says. Nothing that happens to
    the map stops a run. An image that is changed later is seen by the next call, not by who has the
    map. Raises DataError for an image that cannot be decoded, as reading it would, or a limit that
    is no number.
    """
    max_bytes = limit_of(LIMIT_VARIABLE, DEFAULT_GIB) if max_bytes is None else max_bytes
    if max_bytes <= 0:
        return Shared(None, f"decoded images are not shared: {LIMIT_VARIABLE} is 0")
    place = Place.of(samples, folder or cache_folder().with_name("decoded"))
    listing = listing_of(samples)
    try:
        images = load_map(place, listing)
        if images:
            return Shared(images, _note(images, place, "found"))
        if reason := _too_large(samples, place.folder, max_bytes):
            return Shared(None, f"decoded images are not shared: {reason}")
        place.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(place.lock, timeout=WAIT_SECONDS):
            if images := load_map(place, listing):  # another process has just made it
                return Shared(images, _note(images, place, "found"))
            started = time.monotonic()
            _remove_unused(place.folder)
            _build(samples, place, listing)
            seconds = time.monotonic() - started
        images = load_map(place, listing)
    except Timeout:
        minutes = WAIT_SECONDS / 60
        return Shared(
            None, f"decoded images are not shared: {place.lock} was held over {minutes:g} minutes"
        )
    except (OSError, NotImplementedError) as error:  # no space, no rights, no locks
        return Shared(None, f"decoded images are not shared: {error}")
    if images is None:
        return Shared(None, "decoded images are not shared: files changed while they were read")
    return Shared(images, _note(images, place, f"made in {seconds:.1f} s"))


def limit_of(variable: str, default_gib: float) -> int:
    """Return what an environment variable allows, in bytes. Raises DataError if it is no number."""
    given = os.environ.get(variable) or str(default_gib)
    try:
        return int(float(given) * 2**30)
    except (ValueError, OverflowError):
        raise DataError(
            f"{variable}={given!r} is not a number of GiB; give one, or 0 to share nothing"
        ) from None


def _too_large(samples: list[Sample], folder: Path, max_bytes: int) -> str | None:
    """Say which limit a map would break, from the images' headers."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    limits = {
        "the most that a map may take": max_bytes,
        "a quarter of the free disk": int(shutil.disk_usage(existing).free * DISK_SHARE),
        "half of the memory": int(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * MEMORY_SHARE
        ),
    }
    name, limit = min(limits.items(), key=lambda item: item[1])
    total = 0
    for sample in samples:
        width, height = _header_size(sample)
        total += 3 * width * height
        if total > limit:
            return f"their {len(samples):,} images exceed {_mib(limit)}, {name}"
    return None


def _header_size(sample: Sample) -> tuple[int, int]:
    try:
        with Image.open(sample.image_path, formats=IMAGE_FORMATS) as image:
            return image.size
    except BROKEN_IMAGE:
        return read_rgb(sample).size  # raises the error that names the file


def _build(samples: list[Sample], place: Place, listing: str) -> None:
    """Write the map, then its index; neither stays if files changed meanwhile or none can stay."""
    partial = place.pixels.with_suffix(".partial")
    sizes: list[tuple[int, int]] = []
    try:
        with partial.open("wb") as file:
            for sample in samples:
                image = read_rgb(sample)
                sizes.append(image.size)
                file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())  # lest a power cut leave an index of pixels that are not there
        if listing_of(samples) != listing:
            return
        partial.replace(place.pixels)
        index = {
            "version": VERSION, "listing": listing, "stamp": stamp_of(place.pixels.stat()),
            "sizes": sizes,
        }  # fmt: skip
        partial.write_text(json.dumps(index), encoding="utf-8")
        partial.replace(place.index)
    finally:
        partial.unlink(missing_ok=True)


def _remove_unused(folder: Path) -> None:
    """Remove maps last used UNUSED_DAYS ago. A process that still maps one keeps its pages."""
    for name in {path.stem for path in folder.iterdir()}:
        files = [folder / f"{name}.{ending}" for ending in ("json", "pixels", "partial")]
        with suppress(OSError):
            used = max(_last_changes(files), default=time.time())
            if time.time() - used > UNUSED_DAYS * 86400:
                for file in files:
                    file.unlink(missing_ok=True)


def _last_changes(files: list[Path]) -> Iterator[float]:
    for file in files:
        with suppress(FileNotFoundError):
            yield file.stat().st_mtime


def _note(images: DecodedImages, place: Place, how: str) -> str:
    size = _mib(images.num_bytes)
    return f"decoded images are shared: {len(images):,} in {size}, {how}, {place.pixels}"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
