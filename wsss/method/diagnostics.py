"""Numbers that show why a training goes wrong: empty maps, and each loss's pull on the maps.

Legend: V views, B batch, K foreground classes, h w feature size; present [B, K] holds 0 or 1.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from wsss.method.cam import normalise_cam
from wsss.method.losses import CamLosses

LARGE = 0.3
"""A normalised CAM above this is counted as area."""


def map_shares(cams: Tensor, present: Tensor) -> Tensor:
    """Return the share of dead maps and the share of area above LARGE, per view: [2, V].

    cams: raw [V, B, K, h, w]. Over an image's present classes: the share of maps without a positive
    value, and the mean share of pixels whose normalised CAM is above LARGE; then the mean over
    images, in [0, 1]. No gradient.
    """
    with torch.no_grad():
        count = present.sum(1).clamp_min(1)  # [B]
        dead = (cams.amax((3, 4)) <= 0) * present  # [V, B, K]
        area = torch.stack([(normalise_cam(c, present) > LARGE).float().mean((2, 3)) for c in cams])
        return torch.stack([(each.sum(2) / count).mean(1) for each in (dead, area)])


def pull_products(
    cams: Tensor, losses_of: Callable[[Tensor], CamLosses], weights: tuple[float, float]
) -> Tensor:
    """Return the dot products of the losses' gradients on the CAMs, [6]; they add up over images.

    cams: raw [V, B, K, h, w], V >= 2; losses_of: returns the losses of CAMs, image-level scores
    included; weights: lambda_s and lambda_bs times `transfer_weight`. Of the gradients of L_cls,
    lambda_s L_s and lambda_bs L_bs: |cls|^2, |s|^2, |bs|^2, cls . s, cls . bs, s . bs. The graph
    behind `cams` is not touched.
    """
    with torch.enable_grad():
        cams = cams.detach().requires_grad_()
        losses = losses_of(cams)
        assert losses.similarity is not None
        assert losses.background is not None
        terms = (losses.cls, losses.similarity, losses.background)
        gradients = [
            weight * torch.autograd.grad(loss, cams, retain_graph=True)[0]
            for weight, loss in zip((1.0, *weights), terms, strict=True)
        ]
    flat = [gradient.flatten() for gradient in gradients]
    pairs = [*zip(flat, flat, strict=True), *combinations(flat, 2)]
    return torch.stack([first @ second for first, second in pairs])


def pulls(products: Sequence[float]) -> list[float]:
    """Return the norms and cosines of the losses' gradients, from their `pull_products`: [6].

    |g_cls|, |g_s|, |g_bs|, then the cosines of (cls, s), (cls, bs) and (s, bs); 0 for a gradient of
    0.
    """
    norms = [math.sqrt(square) for square in products[:3]]
    lengths = (first * second for first, second in combinations(norms, 2))
    cosines = zip(products[3:], lengths, strict=True)
    return norms + [dot / length if length else 0.0 for dot, length in cosines]
