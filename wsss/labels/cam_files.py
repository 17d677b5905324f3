"""CAMs of one image in a file, so that each refinement starts from the same ones.

Legend: P present classes of one image, H W its size.
"""

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from wsss.data.voc import DataError


def write_cams(path: Path, cams: NDArray[np.float32]) -> None:
    """Write [P, H, W] in [0, 1] in half precision, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{os.getpid()}.npz")
    try:
        np.savez_compressed(partial, cams=cams.astype(np.float16))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_cams(path: Path) -> NDArray[np.float32]:
    """Read what `write_cams` wrote, to within 2^-11. Raises DataError for a broken file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            return data["cams"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: not a file of CAMs ({error}); delete it to infer again") from None
