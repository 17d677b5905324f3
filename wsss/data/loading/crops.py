"""Training crops as IRN cuts them: the whole image is resized, then a window of it is shown.

Pixels stay 8-bit until they reach the device, and are stored as [S, S, 3], which torchvision
resizes fastest. Legend: H W image size, S crop size; a box is (top, left, bottom, right) in crop
pixels.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from wsss.config import TrainConfig
from wsss.data.classes import IGNORE_INDEX

Filter = Literal["bicubic", "bilinear"]


class CropPlan(NamedTuple):
    """Where a crop comes from and where it goes, drawn before any pixel is touched."""

    size: tuple[int, int]
    """(height, width) of the whole image, resized."""
    start: tuple[int, int]
    """First row and column of the resized image that the crop shows."""
    box: tuple[int, int, int, int]
    """Where image content lies in the crop; the rest is padding."""
    flip: bool
    filter: Filter = "bicubic"
    jitter: tuple[float, float, float, float] | None = None
    """Factors of brightness, contrast and saturation, and the shift of the hue; None: off."""


def plan_crop(width: int, height: int, train: TrainConfig, rng: np.random.Generator) -> CropPlan:
    """Draw a training crop of an image of `width` x `height` pixels.

    The long side is drawn uniformly from [min_long_side, max_long_side], then a window of
    crop_size; an image smaller than the window is put at a random place in it (IRN).
    """
    long_side = int(rng.integers(train.min_long_side, train.max_long_side + 1))
    scale = long_side / max(width, height)
    size = scaled_size(height, width, scale)
    first_column, left, right = _place(size[1], train.crop_size, rng)
    first_row, top, bottom = _place(size[0], train.crop_size, rng)
    flip = bool(train.horizontal_flip and rng.integers(2))
    if flip:
        left, right = train.crop_size - right, train.crop_size - left
    jitter = _draw_jitter(train.color_jitter, rng) if train.color_jitter else None
    box = (top, left, bottom, right)
    return CropPlan(size, (first_row, first_column), box, flip, train.resize, jitter)


def cut_crop(image: Tensor, plan: CropPlan, crop_size: int) -> Tensor:
    """Return the planned crop of an RGB image, uint8 [3, H, W]: [3, S, S], 0 in the padding."""
    content = _window(resized(image, plan.size, plan.filter), plan)
    if plan.jitter:
        content = _jittered(content, plan.jitter)
    crop = torch.zeros((crop_size, crop_size, 3), dtype=torch.uint8).permute(2, 0, 1)
    top, left, bottom, right = plan.box
    crop[:, top:bottom, left:right] = content
    return crop


def cut_labels(labels: Tensor, plan: CropPlan, crop_size: int) -> Tensor:
    """Return the planned crop of a label map, uint8 [H, W]: [S, S], 255 in the padding.

    A pixel takes the label below its centre.
    """
    whole = functional.resize(labels[None], list(plan.size), InterpolationMode.NEAREST_EXACT)
    crop = torch.full((crop_size, crop_size), IGNORE_INDEX, dtype=torch.uint8)
    top, left, bottom, right = plan.box
    crop[top:bottom, left:right] = _window(whole, plan)[0]
    return crop


def resized(images: Tensor, size: tuple[int, int], resize_filter: Filter) -> Tensor:
    """Return 8-bit images [..., 3, H, W] at `size` (height, width), antialiased as by Pillow."""
    return functional.resize(images, list(size), InterpolationMode(resize_filter), antialias=True)


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return (height, width) times a scale, at least one pixel each."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def stack_images(images: Sequence[Tensor]) -> Tensor:
    """[3, H, W] each -> [B, 3, H, W] in channels-last format."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _window(resized_image: Tensor, plan: CropPlan) -> Tensor:
    """Return what the crop shows of a resized image [..., H, W], flipped as planned."""
    (row, column), (top, left, bottom, right) = plan.start, plan.box
    window = resized_image[..., row : row + bottom - top, column : column + right - left]
    return window.flip(-1) if plan.flip else window


def _draw_jitter(strength: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    return float(brightness), float(contrast), float(saturation), rng.uniform(-1, 1) * strength / 3


def _jittered(image: Tensor, jitter: tuple[float, float, float, float]) -> Tensor:
    brightness, contrast, saturation, hue = jitter
    image = functional.adjust_brightness(image, brightness)
    image = functional.adjust_contrast(image, contrast)
    image = functional.adjust_saturation(image, saturation)
    return functional.adjust_hue(image, hue)


def _place(size: int, crop_size: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Place one axis of a resized image: its first pixel shown, and start and stop in the crop."""
    if size > crop_size:
        return int(rng.integers(size - crop_size + 1)), 0, crop_size
    start = int(rng.integers(crop_size - size + 1))
    return 0, start, start + size
