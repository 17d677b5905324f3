"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, section 3.4), in plain torch.

A pixel's new score is a weighted mean over its neighbours at several dilations. The weights depend
on the image alone: they fall with the colour difference, measured in local standard deviations.
Legend: B batch, C image channels, L' masks, H W image size, N = 8 neighbours x dilations.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wsss.labels.pseudo_label import pseudo_label
from wsss.segmentation_config import PamrConfig

SPREAD_SHARE = 0.1
"""Colour differences count in tenths of the local standard deviation (the authors' pamr.py)."""
SMALLEST_SPREAD = 1e-8


def pamr(image: Tensor, masks: Tensor, config: PamrConfig) -> Tensor:
    """Return the masks after `config.iterations` steps of weighted averaging.

    image: [C, H, W] or [B, C, H, W] floats of any scale; masks: [L', H, W] or [B, L', H, W], on the
    same device. Returns the masks' shape and dtype. Linear in the masks and with weights that sum
    to 1: masks that sum to 1 still do, a constant mask stays. Beyond the border the nearest pixel
    counts. Raises ValueError if the sizes differ.
    """
    if image.ndim != masks.ndim or image.ndim not in (3, 4) or image.shape[-2:] != masks.shape[-2:]:
        raise ValueError(
            f"image {tuple(image.shape)} and masks {tuple(masks.shape)} must be [C, H, W] and "
            "[L, H, W], or both with a batch in front, of one size; resize the masks first"
        )
    if image.ndim == 3:
        return pamr(image[None], masks[None], config)[0]
    if not (image.is_floating_point() and masks.is_floating_point()):
        raise ValueError(f"image is {image.dtype}, masks {masks.dtype}; convert with .float()")
    weights = neighbour_weights(image, config.dilations)  # [B, N, H, W]
    for _ in range(config.iterations):
        refined = torch.zeros_like(masks)
        for index, neighbour in enumerate(_neighbours(masks, config.dilations)):
            refined.addcmul_(neighbour, weights[:, index, None].to(masks.dtype))
        masks = refined
    return masks


def neighbour_weights(image: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Return each neighbour's weight: [B, C, H, W] -> [B, N, H, W], summing to 1 over N.

    softmax over N of -mean over C of |neighbour - pixel| / (.1 std), where std is taken, channel by
    channel, over the 3 x 3 pixels of every dilation (the centre counts once per dilation).
    """
    count = 9 * len(dilations)
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for neighbour in _neighbours(image, dilations):
        difference = neighbour - image
        total += difference
        squares.addcmul_(difference, difference)
    # Differences to the centre, rather than values, lose no digits; the centre's own are 0.
    variance = (squares - total.square() / count).clamp_(min=0) / (count - 1)
    scale = SMALLEST_SPREAD + SPREAD_SHARE * variance.sqrt()
    closeness = [
        -((neighbour - image).abs() / scale).mean(1) for neighbour in _neighbours(image, dilations)
    ]
    return torch.stack(closeness, 1).softmax(1)


def pamr_label(
    image: NDArray[np.uint8],
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    background_score: float,
    config: PamrConfig,
) -> NDArray[np.uint8]:
    """Return the label map of CAMs after PAMR: [H, W], 0 background, class k as k + 1.

    image: [H, W, 3]; cams: [P, H, W] in [0, 1]; labels: the P 0-based classes. A constant
    background map would stay as it is, so the refined CAMs are compared with the score itself.
    """
    if not labels:
        return np.zeros(image.shape[:2], dtype=np.uint8)
    return pseudo_label(pamr_cams(image, cams, config), labels, background_score)


def pamr_cams(
    image: NDArray[np.uint8], cams: NDArray[np.float32], config: PamrConfig
) -> NDArray[np.float32]:
    """Return refined CAMs, still in [0, 1]: fit for a threshold curve. [P, H, W] -> [P, H, W]."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    with torch.inference_mode():
        refined = pamr(pixels, torch.from_numpy(np.array(cams)), config)
        return refined.clamp_(0, 1).numpy()  # rounding may leave [0, 1] by 1e-7


def _neighbours(x: Tensor, dilations: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield x seen from each of the 8 neighbours at each dilation, as views: N of [B, *, H, W].

    One padding serves all dilations, as replicating repeats the border however far it goes.
    """
    height, width = x.shape[-2:]
    reach = max(dilations)
    padded = F.pad(x, [reach] * 4, mode="replicate")
    for dilation in dilations:
        for down in (-dilation, 0, dilation):
            for right in (-dilation, 0, dilation):
                if (down, right) != (0, 0):
                    top, left = reach + down, reach + right
                    yield padded[..., top : top + height, left : left + width]
