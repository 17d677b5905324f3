"""The losses of the attention transfer training, Eq. 4 to 7.

Legend: B batch, K foreground classes, V views, h w feature size; present [B, K] holds 0 or 1.
Every loss is a mean over images of a value per image, so equal shards of a batch average to the
whole batch's loss and gradient.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from wsss.config import TransferConfig, ViewsConfig
from wsss.method.cam import activate_cam, background_map, belongs_to, merge_cams, normalise_cam


class CamLosses(NamedTuple):
    """The total and its terms, scalars; a term that is not in use is None."""

    total: Tensor
    cls: Tensor
    similarity: Tensor | None
    background: Tensor | None


def classification_loss(
    logits: Tensor, targets: Tensor, *, over_classes: str = "mean", over_views: str = "mean"
) -> Tensor:
    """Binary cross entropy of image-level scores (Eq. 4).

    logits: [V, B, K]; targets: [B, K] in {0, 1}. Mean over the batch; `over_classes` and
    `over_views` are mean or sum.
    """
    each = F.binary_cross_entropy_with_logits(
        logits, targets.expand_as(logits), reduction="none"
    )  # [V, B, K]
    per_image = each.mean(2) if over_classes == "mean" else each.sum(2)
    return per_image.mean() if over_views == "mean" else per_image.sum(0).mean()


def l1_distance(
    first: Tensor, second: Tensor, present: Tensor, *, reduction: str = "all"
) -> Tensor:
    """L1 distance of two maps, averaged over images (Eq. 5, 6).

    first, second: [B, K, h, w]; present: [B, K]. `present`: mean over an image's present classes
    and pixels; `all`: over all classes and pixels; `sum`: the plain sum. Absent classes count 0.
    """
    distance = (first - second).abs() * present[:, :, None, None]
    if reduction == "sum":
        return distance.sum((1, 2, 3)).mean()
    if reduction == "all":
        return distance.mean()
    per_class = distance.mean((2, 3)).sum(1)  # [B]
    return (per_class / present.sum(1).clamp_min(1)).mean()


def transfer_weight(progress: float, transfer: TransferConfig) -> float:
    """Return the factor in [0, 1] of lambda_s and lambda_bs at this point of the training.

    progress: share of the training that is done, in [0, 1]. 0 up to `transfer.start`, then a
    straight line over `transfer.ramp`, then 1.
    """
    since = progress - transfer.start
    if since < 0:
        return 0.0
    return 1.0 if transfer.ramp == 0 else min(1.0, since / transfer.ramp)


def compared_classes(cams: Tensor, present: Tensor, empty_maps: str) -> Tensor:
    """Return which classes L_s and L_bs compare: [B, K] of 0 and 1.

    cams: raw [V, B, K, h, w]. Present ones; with empty_maps `skip` only those with a positive value
    in every view: an empty map gets no gradient, so it can only spoil the others.
    """
    if empty_maps == "compare":
        return present
    return present * (cams.detach().amax((3, 4)) > 0).all(0)


def merged_cam(cams: Tensor, present: Tensor, transfer: TransferConfig) -> Tensor:
    """Return M^o of raw CAMs [A, B, K, h, w], A = 1 or 2: [B, K, h, w] (III-B).

    Two CAMs (enhanced and decreased, or the original and one view) are merged by the four cases; a
    single one is M^o itself.
    """
    activated = [activate_cam(cam, present, transfer.cam_activation) for cam in cams]
    if len(activated) == 1:
        merged = activated[0]
    else:
        belongs = [
            belongs_to(
                normalise_cam(cam, present), present, transfer.belongs_score, transfer.belongs
            )
            for cam in cams
        ]
        if transfer.half_of == "sigmoid":
            halves = cams.amax(0).sigmoid() > 0.5
        else:
            halves = normalise_cam(cams[0], present).maximum(normalise_cam(cams[1], present)) > 0.5
        merged = merge_cams(activated[0], activated[1], belongs[0], belongs[1], halves)
    return merged.detach() if transfer.merged_gradient == "stop" else merged


def similarity_loss(
    original: Tensor,
    adjusted: list[Tensor],
    merged: Tensor,
    present: Tensor,
    transfer: TransferConfig,
) -> Tensor:
    """L_s: half the distances of the adjusted CAMs to M_o (Eq. 5), or to M^o (the prose of III-B).

    All maps [B, K, h, w], activated. With one view: its single term |M_o - M_e| or |M_o - M_d| in
    either reading, halved unless `transfer.single_view` is full.
    """
    anchor = merged if transfer.similarity_pairs == "prose" and len(adjusted) > 1 else original
    terms = [
        l1_distance(anchor, view, present, reduction=transfer.l1_reduction) for view in adjusted
    ]
    total = sum(terms[1:], terms[0])
    return total if len(terms) == 1 and transfer.single_view == "full" else total / 2


def background_loss(
    original: Tensor, merged: Tensor, present: Tensor, transfer: TransferConfig
) -> Tensor:
    """L_bs: distance of the background maps of M_o and M^o (Eq. 6), activated [B, K, h, w]."""
    score, kind = transfer.belongs_score, transfer.background_map
    maps = [background_map(cam, present, score, kind) for cam in (original, merged)]
    with_background = F.pad(present, (1, 0), value=1.0)  # [B, 1 + K], background always counts
    return l1_distance(maps[0], maps[1], with_background, reduction=transfer.l1_reduction)


def cam_losses(
    logits: Tensor,
    cams: Tensor,
    targets: Tensor,
    views: ViewsConfig,
    transfer: TransferConfig,
    *,
    over_classes: str = "mean",
    over_views: str = "mean",
    progress: float = 1.0,
) -> CamLosses:
    """The total loss L = L_cls + lambda_s L_s + lambda_bs L_bs and its terms (Eq. 7).

    logits: [V, B, K] and raw cams: [V, B, K, h, w], views in the order original, enhanced,
    decreased; targets: [B, K]. progress: share of the training that is done, for
    `transfer_weight`, which multiplies both lambdas. L_s and L_bs are computed (and reported)
    whenever there is an adjusted view, even under a weight of 0. Raises ValueError if V does not
    fit `views`.
    """
    if len(cams) != 1 + len(views.names):
        raise ValueError(f"{len(cams)} maps for the original and views {views.names}")
    cls = classification_loss(logits, targets, over_classes=over_classes, over_views=over_views)
    if not views.names:
        return CamLosses(cls, cls, None, None)
    present = compared_classes(cams, targets, transfer.empty_maps)
    original, *adjusted = (activate_cam(cam, present, transfer.cam_activation) for cam in cams)
    with_original = len(adjusted) == 1 and transfer.single_view == "merged"
    merged = merged_cam(cams if with_original else cams[1:], present, transfer)
    similarity = similarity_loss(original, adjusted, merged, present, transfer)
    background = background_loss(original, merged, present, transfer)
    weight = transfer_weight(progress, transfer)
    total = cls + weight * (transfer.lambda_s * similarity + transfer.lambda_bs * background)
    return CamLosses(total, cls, similarity, background)
