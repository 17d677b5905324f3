"""Files that hold one image's CAMs. Legend: P present classes of one image, H W its size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wsss.basics.errors import let_through
from wsss.basics.files import BROKEN_ZIP, open_file, whole_or_absent
from wsss.data.errors import DataError


class CamFile(NamedTuple):
    """The content of a file of CAMs."""

    path: Path
    cams: NDArray[np.float32]
    """[P, H, W] in [0, 1]."""
    classes: tuple[int, ...]
    """The P 0-based classes."""
    source: str = ""
    """What they were made from (sources.py); "" if the file does not say."""


def write_cams(
    path: Path, cams: NDArray[np.float32], classes: tuple[int, ...], *, source: str = ""
) -> None:
    """Write [P, H, W] in [0, 1] in half precision, and their classes, atomically.

    Raises DataError for NaN and infinity, which a network that has diverged gives.
    """
    if not np.isfinite(cams).all():
        raise DataError(
            f"{path}: not written, as a CAM is NaN or infinite: the network's weights are broken; "
            "train it again with a lower train.lr"
        )
    with whole_or_absent(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file, classes=np.array(classes), cams=cams.astype(np.float16), source=np.array(source)
        )


def read_cams(path: Path) -> CamFile:
    """Read what `write_cams` wrote, to within 2^-11. Raises DataError for a broken file."""
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as data:
            return CamFile(
                path,
                data["cams"].astype(np.float32),
                tuple(int(k) for k in data["classes"]),
                str(data["source"]) if "source" in data else "",
            )
    except FileNotFoundError:
        raise DataError(f"{path}: missing; infer its CAMs first") from None
    except BROKEN_ZIP as error:
        let_through(error, path)
        raise DataError(f"{path}: not a file of CAMs ({error}); delete it to infer again") from None


def cams_of(path: Path, classes: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the CAMs of an image of these classes and this size (H, W): [P, H, W] in [0, 1].

    Raises DataError for a file that is broken or is not of this image.
    """
    found = read_cams(path)
    if found.classes != classes:
        raise DataError(
            f"{path}: of the classes {list(found.classes)[:9]}, but the image is labelled "
            f"{list(classes)}; delete it to infer again"
        )
    require_fitting(found, size, max(classes) + 1)
    return found.cams


def require_fitting(found: CamFile, size: tuple[int, ...], num_classes: int) -> None:
    """Raise DataError unless the maps are [P, H, W] in [0, 1] of this size (H, W).

    Their P classes must be different ones of 0..num_classes - 1.
    """
    maps, classes = found.cams, found.classes
    if maps.shape != (len(classes), *size) or not classes:
        fault = f"maps {maps.shape} of {len(classes)} classes, its image is {size}"
    elif len(set(classes)) < len(classes) or not set(classes) <= set(range(num_classes)):
        fault = f"classes {list(classes)[:9]}, expected different ones of 0..{num_classes - 1}"
    elif not (maps.min() >= 0 and maps.max() <= 1):  # false for NaN, too
        fault = "a value is not between 0 and 1"
    else:
        return
    raise DataError(f"{found.path}: {fault}; delete it to infer again")
