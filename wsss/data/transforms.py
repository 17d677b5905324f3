"""Training crops: scale jitter, flip and crop in one 8-bit resize.

Only the part of the image that lands in the crop is resized, and pixels stay 8-bit until they reach
the device. Legend: S crop size; a box is (top, left, bottom, right) in crop pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional

from wsss.config import TrainConfig


class CropPlan(NamedTuple):
    """Where a crop comes from and where it lands, before any pixel is touched."""

    source: tuple[float, float, float, float]
    """(left, upper, right, lower) in the original image's pixels."""
    box: tuple[int, int, int, int]
    """Where image content lies in the crop; the rest is padding."""
    flip: bool
    jitter: tuple[float, float, float, float] | None = None
    """Factors of brightness, contrast and saturation, and the turn of the hue; None: off."""


def plan_crop(width: int, height: int, train: TrainConfig, rng: np.random.Generator) -> CropPlan:
    """Draw a training crop of an image of `width` x `height` pixels.

    The long side is drawn uniformly from [min_long_side, max_long_side], then a window of
    crop_size; an image smaller than the window lands at a random place in it (IRN practice).
    """
    long_side = int(rng.integers(train.min_long_side, train.max_long_side + 1))
    scale = long_side / max(width, height)
    left, right, source_left, source_right = _place(width, scale, train.crop_size, rng)
    top, bottom, source_top, source_bottom = _place(height, scale, train.crop_size, rng)
    flip = bool(train.horizontal_flip and rng.integers(2))
    if flip:
        left, right = train.crop_size - right, train.crop_size - left
    return CropPlan(
        (source_left, source_top, source_right, source_bottom),
        (top, left, bottom, right),
        flip,
        _draw_jitter(train.color_jitter, rng) if train.color_jitter else None,
    )


def cut_crop(image: Image.Image, plan: CropPlan, crop_size: int) -> NDArray[np.uint8]:
    """Return the planned crop of an RGB image: [S, S, 3], 0 in the padding.

    It is a view of [3, S, S], as networks want it: Pillow takes channels apart faster than torch.
    """
    top, left, bottom, right = plan.box
    content = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=plan.source)
    if plan.flip:
        content = content.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if plan.jitter:
        content = _jittered(content, plan.jitter)
    crop = np.zeros((3, crop_size, crop_size), dtype=np.uint8)
    for channel, plane in zip(crop, content.split(), strict=True):
        channel[top:bottom, left:right] = np.asarray(plane)
    return crop.transpose(1, 2, 0)


def _draw_jitter(strength: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    return float(brightness), float(contrast), float(saturation), rng.uniform(-1, 1) * strength / 3


def _jittered(image: Image.Image, jitter: tuple[float, float, float, float]) -> Image.Image:
    brightness, contrast, saturation, hue = jitter
    image = functional.adjust_brightness(image, brightness)
    image = functional.adjust_contrast(image, contrast)
    image = functional.adjust_saturation(image, saturation)
    return functional.adjust_hue(image, hue)


def _place(
    size: int, scale: float, crop_size: int, rng: np.random.Generator
) -> tuple[int, int, float, float]:
    """Place one axis: (start, stop) in the crop, (start, stop) in the original image."""
    scaled = max(1, round(size * scale))
    if scaled > crop_size:
        offset = int(rng.integers(scaled - crop_size + 1))
        return 0, crop_size, offset * size / scaled, (offset + crop_size) * size / scaled
    start = int(rng.integers(crop_size - scaled + 1))
    return start, start + scaled, 0.0, float(size)
