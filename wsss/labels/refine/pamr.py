"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, section 3.4), in plain torch.

A pixel's new score is a weighted mean over its neighbours at several dilations. The weights depend
on the image alone: they fall with the colour difference, measured in local standard deviations.
Legend: C image channels, L' masks, H W image size, N = 8 neighbours x dilations.
"""

import itertools
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

    image: [C, H, W] floats of any scale; masks: [L', H, W] floats, on the same device. Returns the
    masks' shape and dtype. Linear in the masks and with weights that sum to 1: masks that sum to 1
    still do, and a constant mask stays. The border is replicated.
    """
    weights = neighbour_weights(image, config.dilations)  # [N, H, W]
    for _ in range(config.iterations):
        refined = torch.zeros_like(masks)
        for index, neighbour in enumerate(_neighbours(masks, config.dilations)):
            refined.addcmul_(neighbour, weights[index].to(masks.dtype))
        masks = refined
    return masks


def neighbour_weights(image: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Return each neighbour's weight: [C, H, W] -> [N, H, W], summing to 1 over N.

    softmax over N of -mean over C of |neighbour - pixel| / (.1 std), where std is taken, channel by
    channel, over the 3 x 3 pixels of every dilation (the centre counts once per dilation).
    """
    count = 9 * len(dilations)
    total, squares = torch.zeros_like(image), torch.zeros_like(image)
    for neighbour in _neighbours(image, dilations):
        difference = neighbour - image
        total += difference
        squares.addcmul_(difference, difference)
    # Differences from the centre are more exact than values; the centre's own are 0.
    variance = (squares - total.square() / count).clamp_(min=0) / (count - 1)
    scale = SMALLEST_SPREAD + SPREAD_SHARE * variance.sqrt()
    closeness = [
        -((neighbour - image).abs() / scale).mean(0) for neighbour in _neighbours(image, dilations)
    ]
    return torch.stack(closeness).softmax(0)


def pamr_label(
    image: NDArray[np.uint8],
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    background_score: float,
    config: PamrConfig,
    device: torch.device,
) -> NDArray[np.uint8]:
    """Return the label map of CAMs after PAMR: [H, W], 0 background, class k as k + 1.

    image: [H, W, 3]; cams: [P, H, W] in [0, 1]; labels: the P 0-based classes. A constant
    background map would stay as it is, so the refined CAMs are compared with the score itself.
    """
    return pseudo_label(pamr_cams(image, cams, config, device), labels, background_score)


def pamr_cams(
    image: NDArray[np.uint8], cams: NDArray[np.float32], config: PamrConfig, device: torch.device
) -> NDArray[np.float32]:
    """Return refined CAMs, still in [0, 1]: [P, H, W] -> [P, H, W]. image: [H, W, 3]."""
    pixels, masks = (torch.from_numpy(np.array(each)).to(device) for each in (image, cams))
    with torch.inference_mode():
        refined = pamr(pixels.permute(2, 0, 1).float(), masks, config)
        return refined.clamp_(0, 1).cpu().numpy()  # rounding may leave [0, 1] by 1e-7


def _neighbours(x: Tensor, dilations: tuple[int, ...]) -> Iterator[Tensor]:
    """Yield x seen from each of the 8 neighbours at each dilation, as views: N of [*, H, W].

    One padding serves all dilations, as the replicated border is the same at any distance.
    """
    height, width = x.shape[-2:]
    reach = max(dilations)
    padded = F.pad(x, [reach] * 4, mode="replicate")
    for dilation, down, right in itertools.product(dilations, (-1, 0, 1), (-1, 0, 1)):
        if (down, right) != (0, 0):
            top, left = reach + dilation * down, reach + dilation * right
            yield padded[..., top : top + height, left : left + width]
