"""Initial weights by content: a file is named by its digest, whatever its path."""

import hashlib
from pathlib import Path

from wsss.basics.errors import ForeseenError
from wsss.basics.files import refuse_pipe
from wsss.config import NetworkConfig

NAMES = ("imagenet_v1", "imagenet_v2", "none")
"""Initial weights that need no file from the user."""

IMAGENET_FILES = {
    ("resnet50", "imagenet_v1"): "resnet50-0676ba61.pth",
    ("resnet50", "imagenet_v2"): "resnet50-11ad3fa6.pth",
    ("resnet18", "imagenet_v1"): "resnet18-f37072fd.pth",
    ("mobilenet_v2", "imagenet_v1"): "mobilenet_v2-b0353104.pth",
    ("mobilenet_v2", "imagenet_v2"): "mobilenet_v2-7ebf99e0.pth",
}
"""The file of each name, whatever torchvision's default is. resnet50-0676ba61 has the tensors of
resnet50-19c8e357, which IRN, Puzzle-CAM and ReCAM load, in a newer container."""


class WeightsError(ForeseenError, ValueError):
    """Initial weights that cannot be used; the message names the file, the rule and the remedy."""


def file_digest(path: Path) -> str:
    """Return a weights file's name in a configuration, `sha256:<64 hex digits>`.

    Raises WeightsError if the file cannot be read.
    """
    refuse_pipe(path, WeightsError)
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise WeightsError(
            f"{path}: {error.strerror}; give a state dict file, {', '.join(NAMES)}"
        ) from None


def resolve_weights(weights: str) -> tuple[str, Path | None]:
    """Return a command line's weights as (name in the configuration, file if there is one).

    weights: one of NAMES, or a file. Raises WeightsError.
    """
    if weights in NAMES:
        return weights, None
    path = Path(weights).absolute()
    return file_digest(path), path


def require_weights(network: NetworkConfig, weights_file: Path | None) -> None:
    """Raise WeightsError unless the configured weights exist, if need be as `weights_file`.

    A file's digest is checked; nothing is loaded or downloaded.
    """
    if network.weights == "none":
        return
    if network.weights in NAMES:
        if (network.backbone, network.weights) not in IMAGENET_FILES:
            known = [name for backbone, name in IMAGENET_FILES if backbone == network.backbone]
            raise WeightsError(
                f"{network.backbone} has no weights {network.weights}; there are: "
                f"{', '.join([*known, 'none'])}, or a file of your own with --weights FILE"
            )
        return
    if weights_file is None:
        raise WeightsError(
            f"weights {network.weights[:19]}... need their file; give --weights FILE"
        )
    if file_digest(weights_file) != network.weights:
        raise WeightsError(
            f"{weights_file}: its SHA-256 is not {network.weights[:19]}... of the configuration; "
            "give the file that the run was planned with"
        )
