"""Segments the user's own pictures: a mask and an overlay each. Legend: H W image size."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from wsss.basics.files import whole_or_absent
from wsss.data.errors import DataError
from wsss.data.loading.crops import resized, scaled_size
from wsss.data.pictures.image import as_array, read_image
from wsss.data.pictures.mask import write_label_png
from wsss.labels.segment import label_colours, segment_image, strongest_label
from wsss.networks.deeplab import DeepLab
from wsss.segmentation_config import DeepLabConfig
from wsss.training.process import pick_device

MAX_LONG_SIDE = 1000
"""Pixels to which larger pictures are scaled down: the network was trained on VOC's 500 pixels."""


class Prediction(NamedTuple):
    """What was written for one picture."""

    picture: Path
    mask: Path
    """Palette PNG of the picture's size: 0 background, 1..K classes."""
    overlay: Path
    """The picture with the found objects tinted, PNG."""
    shares: dict[str, float]
    """Share of the pixels by label in [0, 1], the largest first; absent labels are left out."""


def predict_images(
    model: DeepLab, paths: Sequence[Path], out: Path, config: DeepLabConfig, classes: Sequence[str]
) -> Iterator[Prediction | DataError]:
    """Write `out`/<name>.png and `out`/<name>_overlay.png of each picture; yield once written.

    For a picture that is missing or cannot be decoded, its error is yielded. Pictures turned by an
    EXIF tag are turned upright, and so are their masks. A picture whose long side exceeds
    MAX_LONG_SIDE is segmented at that size and its mask enlarged. Raises DataError, before anything
    is written, if a mask would replace a picture or another mask.
    """
    names = ("background", *classes)
    _check_paths(paths, out)
    device = pick_device()
    model.to(device).eval()
    for path in paths:
        if not os.path.isfile(path):  # noqa: PTH113 - Path's may raise
            yield DataError(f"{path}: no file that can be read; give the path of a picture")
            continue
        try:
            image = read_image(path)
        except DataError as error:
            yield error
            continue
        label = _label_map(model, image, config, device=device)
        mask, overlay = _targets(path, out)
        write_label_png(mask, label)
        with whole_or_absent(overlay) as partial:
            tinted = overlay_labels(as_array(image), label)
            Image.fromarray(tinted).save(partial, format="PNG")
        counts = np.bincount(label.ravel(), minlength=len(names))
        order = np.argsort(-counts, kind="stable")
        shares = {names[k]: float(counts[k] / label.size) for k in order if counts[k]}
        yield Prediction(path, mask, overlay, shares)


def overlay_labels(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tint the foreground of an image [H, W, 3] half in the colours of its labels [H, W]."""
    tinted = (image.astype(np.uint16) + label_colours(label)) // 2
    return np.where((label > 0)[..., None], tinted, image).astype(np.uint8)


def _label_map(
    model: DeepLab, image: Tensor, config: DeepLabConfig, *, device: torch.device
) -> NDArray[np.uint8]:
    """Return an RGB image's labels [H, W], found at MAX_LONG_SIDE if it is larger."""
    height, width = image.shape[1:]
    scale = min(1.0, MAX_LONG_SIDE / max(height, width))
    small = resized(image, scaled_size(height, width, scale), "bilinear")
    found = torch.from_numpy(strongest_label(segment_image(model, small, config, device=device)))
    whole = functional.resize(found[None], [height, width], InterpolationMode.NEAREST_EXACT)
    return whole[0].numpy()


def _targets(path: Path, out: Path) -> tuple[Path, Path]:
    """Return the paths of a picture's mask and overlay."""
    return out / f"{path.stem}.png", out / f"{path.stem}_overlay.png"


def _check_paths(paths: Sequence[Path], out: Path) -> None:
    written = Counter(target for path in paths for target in _targets(path, out))
    given = {os.path.realpath(path) for path in paths}
    for path in paths:
        for target in _targets(path, out):
            if written[target] > 1 or os.path.realpath(target) in given:
                raise DataError(
                    f"{path}: {target} would replace another picture or its mask; rename the "
                    "picture or write to another folder"
                )
