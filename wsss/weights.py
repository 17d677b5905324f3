"""Initial weights by content: a file is named by its digest, wherever it lies."""

import hashlib
from pathlib import Path

from wsss.errors import ForeseenError

NAMES = ("imagenet_v1", "imagenet_v2", "none")
"""Initial weights that need no file of the user's."""


class WeightsError(ForeseenError, ValueError):
    """Initial weights that cannot be used; the message names the file, the rule and the remedy."""


def file_digest(path: Path) -> str:
    """Return a weights file's name in a configuration, `sha256:<64 hex digits>`.

    Raises WeightsError if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise WeightsError(
            f"{path}: {error.strerror}; give a state dict file, {', '.join(NAMES)}"
        ) from None


def resolve_weights(weights: str | None, preset: str) -> tuple[str, Path | None]:
    """Return a command line's weights as (name in the configuration, file if there is one).

    `weights` is one of NAMES, a file, or None for the preset's own. Raises WeightsError.
    """
    if weights is None:
        return preset, None
    if weights in NAMES:
        return weights, None
    if weights == "imagenet":
        raise WeightsError(
            "--weights imagenet: two sets go by that name; give imagenet_v1 (the one of IRN, "
            "Puzzle-CAM and ReCAM) or imagenet_v2 (torchvision's later recipe)"
        )
    path = Path(weights).absolute()
    return file_digest(path), path
