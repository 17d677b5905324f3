"""CAM arithmetic: normalisation, the merge rule and the background map (III-B).

Legend: B batch, K foreground classes, h w feature size; present [B, K] holds 0 or 1.
"""

import torch
from torch import Tensor

EPSILON = 1e-5
"""Keeps a CAM without any positive activation at 0 instead of 0 / 0 (SEAM and IRN use 1e-5)."""


def normalise_cam(cams: Tensor, present: Tensor) -> Tensor:
    """ReLU, divided by each class's maximum over the pixels; absent classes are 0.

    cams: raw [B, K, h, w]. Returns [B, K, h, w] in [0, 1].
    """
    positive = cams.relu() * present[:, :, None, None]
    return positive / (positive.amax((2, 3), keepdim=True) + EPSILON)


def activate_cam(cams: Tensor, present: Tensor, activation: str) -> Tensor:
    """Return CAMs as the L1 losses compare them (`transfer.cam_activation`); absent classes are 0.

    cams: raw [B, K, h, w]; returns the same shape. relu_max: in [0, 1], as `normalise_cam`;
    min_max: in [0, 1], scaled from the minimum after the ReLU to the maximum (SEAM); raw:
    unbounded; sigmoid: in (0, 1).
    """
    if activation == "relu_max":
        return normalise_cam(cams, present)
    if activation == "min_max":
        positive = cams.relu() * present[:, :, None, None]
        low, high = positive.amin((2, 3), keepdim=True), positive.amax((2, 3), keepdim=True)
        return (positive - low - EPSILON).relu() / (high - low + EPSILON)
    if activation == "raw":
        return cams * present[:, :, None, None]
    return torch.sigmoid(cams) * present[:, :, None, None]


def belongs_to(cam: Tensor, present: Tensor, score: float, rule: str) -> Tensor:
    """Return which pixels belong to which class, given the background score.

    cam: normalised [B, K, h, w]. Returns bool [B, K, h, w]. `argmax`: the class wins against the
    background score and all other classes (ties go to background, then to the lower class);
    `threshold`: its CAM is above the score.
    """
    if rule == "threshold":
        return (cam > score) & (present[:, :, None, None] > 0)
    background = torch.full_like(cam[:, :1], score)
    winner = torch.cat([background, cam], 1).argmax(1, keepdim=True)  # [B, 1, h, w], 0 background
    classes = torch.arange(1, cam.shape[1] + 1, device=cam.device)[:, None, None]
    return (winner == classes) & (present[:, :, None, None] > 0)


def merge_cams(
    enhanced: Tensor, decreased: Tensor, belongs_e: Tensor, belongs_d: Tensor, halves: Tensor
) -> Tensor:
    """Merge M_e and M_d into M^o by the four cases of III-B.

    enhanced, decreased: [B, K, h, w]; belongs_e, belongs_d: bool, whether a pixel belongs to the
    class in each; halves: bool, whether the larger confidence is above .5. Per class and pixel:
    both belong -> max; one belongs and the larger is above .5 -> max; else 0. Returns [B, K, h, w].
    """
    larger = torch.maximum(enhanced, decreased)
    both, one = belongs_e & belongs_d, belongs_e ^ belongs_d
    return torch.where(both | (one & halves), larger, torch.zeros_like(larger))


def background_map(cam: Tensor, present: Tensor, score: float, kind: str) -> Tensor:
    """Return M_b: the background's activation, and the classes' most recognisable ones (III-B).

    cam: normalised [B, K, h, w]. Returns [B, 1 + K, h, w], channel 0 the background. By `kind`:

    | kind          | background channel                         | classes                      |
    |---------------|--------------------------------------------|------------------------------|
    | one_minus_max | 1 - max over classes, which has a gradient | per pixel the strongest      |
    | fixed_score   | `score` where no class exceeds it, or 0    | the same, 0 under background |
    | peaks         | as one_minus_max                           | each at its highest place    |
    | background    | as one_minus_max                           | 0                            |

    "Only the most recognisable activation is kept": per pixel, as SEAM does, or per class; the
    first of equals.
    """
    cam = cam * present[:, :, None, None]
    strongest, index = cam.max(1, keepdim=True)  # [B, 1, h, w]
    if kind == "background":
        return torch.cat([1 - strongest, torch.zeros_like(cam)], 1)
    if kind == "peaks":
        peak, place = cam.flatten(2).max(2, keepdim=True)  # [B, K, 1]
        peaks = torch.zeros_like(cam).flatten(2).scatter(2, place, peak).view_as(cam)
        return torch.cat([1 - strongest, peaks], 1)
    foreground = torch.zeros_like(cam).scatter(1, index, strongest)
    if kind == "one_minus_max":
        return torch.cat([1 - strongest, foreground], 1)
    is_background = strongest <= score  # fixed_score
    background = torch.where(is_background, score, 0.0).to(cam.dtype)
    return torch.cat([background, foreground.masked_fill(is_background, 0.0)], 1)
