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

    relu_max: in [0, 1], as `normalise_cam`; raw: unbounded; sigmoid: in (0, 1). Shapes as there.
    Raises ValueError for an unknown activation.
    """
    if activation == "relu_max":
        return normalise_cam(cams, present)
    if activation == "raw":
        return cams * present[:, :, None, None]
    if activation == "sigmoid":
        return torch.sigmoid(cams) * present[:, :, None, None]
    raise ValueError(f"unknown CAM activation {activation!r}; see transfer.cam_activation")


def belongs_to(cam: Tensor, present: Tensor, score: float, rule: str) -> Tensor:
    """Tell which pixels belong to which class, against background score `score`.

    cam: normalised [B, K, h, w]. Returns bool [B, K, h, w]. `argmax`: the class wins against the
    background score and all other classes (ties go to background, then to the lower class);
    `threshold`: its CAM is above the score.
    """
    if rule not in ("argmax", "threshold"):
        raise ValueError(f"unknown rule {rule!r}; see transfer.belongs")
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
    """Return M_b: the background's activation, and per pixel the strongest class alone (III-B).

    cam: normalised [B, K, h, w]. Returns [B, 1 + K, h, w], channel 0 the background. "Only the
    most recognisable activation is kept" is read per pixel, as SEAM does. Background channel:
    `one_minus_max` gives 1 - max over classes, which carries a gradient; `fixed_score` gives
    `score` where no class exceeds it and 0 elsewhere, and the classes are then 0 there.
    """
    cam = cam * present[:, :, None, None]
    strongest, index = cam.max(1, keepdim=True)  # [B, 1, h, w]
    foreground = torch.zeros_like(cam).scatter(1, index, strongest)
    if kind == "one_minus_max":
        return torch.cat([1 - strongest, foreground], 1)
    if kind == "fixed_score":
        is_background = strongest <= score
        background = torch.where(is_background, score, 0.0).to(cam.dtype)
        return torch.cat([background, foreground.masked_fill(is_background, 0.0)], 1)
    raise ValueError(f"unknown background map {kind!r}; see transfer.background_map")
