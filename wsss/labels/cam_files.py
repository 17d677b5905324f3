"""CAMs of one image in a file, so that each refinement starts from the same ones.

Legend: P present classes of one image, H W its size.
"""

import zlib
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wsss.data.voc import DataError
from wsss.json_files import whole_or_absent

BROKEN = (
    OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, NotImplementedError,
    RuntimeError, MemoryError,
)  # fmt: skip
"""What zipfile and NumPy raise for damaged archives of arrays."""


class CamFile(NamedTuple):
    """What a file holds."""

    cams: NDArray[np.float32]
    """[P, H, W] in [0, 1]."""
    classes: tuple[int, ...]
    """The P 0-based classes."""


def write_cams(path: Path, cams: NDArray[np.float32], classes: tuple[int, ...]) -> None:
    """Write [P, H, W] in [0, 1] in half precision, and their classes, whole or not at all."""
    with whole_or_absent(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, classes=np.array(classes), cams=cams.astype(np.float16))


def read_cams(path: Path) -> CamFile:
    """Read what `write_cams` wrote, to within 2^-11. Raises DataError for a broken file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return CamFile(data["cams"].astype(np.float32), tuple(int(k) for k in data["classes"]))
    except FileNotFoundError:
        raise DataError(f"{path}: missing; infer its CAMs first") from None
    except BROKEN as error:
        raise DataError(f"{path}: not a file of CAMs ({error}); delete it to infer again") from None
