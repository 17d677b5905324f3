"""Each pixel's mean over similar pixels (Eq. 3), without large N x N matrices in memory.

The cosine of two pixels is symmetric. On a large map only blocks on and above the diagonal are
computed, each used while it is in the cache, and computed again in the backward pass rather than
kept: fewer multiplications than the full matrix takes, and memory that grows with N rather than
N^2. On a small map the matrix is smaller than the features, so it is kept whole.

Legend: B batch, N pixels, C channels, R pixels of a block.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL_MAP_PIXELS = 256
"""Up to this N the whole matrix is kept, 256 KiB per image in fp32."""

BLOCK_PIXELS = 512
"""R: a block has R^2 entries per image, 1 MiB in fp32."""

SMALLEST_SUM = 1e-6
"""A pixel's cosine with itself is 1, so a row sums to at least 1, unless its features are all 0."""

SMALLEST_LENGTH = 1e-12
"""Features are divided by their length, or by this if they are all 0."""


def associate(
    features: Tensor,
    values: Tensor | None = None,
    *,
    temperature: float | None,
    small_map: int = SMALL_MAP_PIXELS,
) -> Tensor:
    """Weighted mean of pixels' values by the cosine of their features, for all pairs of pixels.

    features: [B, N, C]; values: [B, N, C'], by default the features. Returns the values' shape, in
    fp32 or the wider type of the input. Without a temperature the weights are ReLU(cosine) over
    their row sum, else softmax(cosine / temperature). Under autocast, products are taken in its
    type. small_map: the largest N whose matrix is kept whole.
    """
    device, kind = features.device.type, features.dtype
    wide = torch.promote_types(kind, torch.float32)
    known = torch.amp.is_autocast_available(device)  # not of shapes without values
    if known and torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
    # The backward pass is never under autocast.
    with torch.autocast(device, enabled=False) if known else nullcontext():
        values = features if values is None else values
        if features.shape[1] <= small_map:
            return _by_matrix(features.to(kind), values.to(kind), temperature).to(wide)
        unit = F.normalize(features.to(wide), dim=2, eps=SMALLEST_LENGTH)
        return by_blocks(unit.to(kind), values.to(kind), temperature=temperature)


def _by_matrix(features: Tensor, values: Tensor, temperature: float | None) -> Tensor:
    """Return the mean by the whole N x N matrix; lengths are the square roots of its diagonal."""
    products: Tensor = _Products.apply(features)
    products = products.to(torch.promote_types(features.dtype, torch.float32))
    inverse = products.diagonal(dim1=1, dim2=2).clamp_min(SMALLEST_LENGTH**2).rsqrt()  # [B, N]
    cosine = products * (inverse[:, :, None] * inverse[:, None])
    if temperature is None:
        weights = cosine.relu()
        weights = weights / weights.sum(2, keepdim=True).clamp_min(SMALLEST_SUM)
    else:
        weights = torch.softmax(cosine / temperature, 2)
    return weights.to(values.dtype) @ values


class _Products(torch.autograd.Function):
    """X -> X X^T, whose gradient is one product, since (G + G^T) X = G X + G^T X."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features @ features.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return (gradients[0] + gradients[0].transpose(1, 2)) @ features


def by_blocks(
    unit: Tensor, values: Tensor, *, temperature: float | None, block: int = BLOCK_PIXELS
) -> Tensor:
    """Weighted mean of `values` by the cosine of unit vectors.

    unit: [B, N, C] of length 1 (or all 0); values: [B, N, C'], of one type. Returns [B, N, C'], in
    fp32 or the wider type of the input. Not to be called under autocast. block: R.
    """
    result: Tensor = _Association.apply(unit, values, temperature, block)
    return result


class _Association(torch.autograd.Function):
    """With W = f(U U^T), f ReLU or exp, and s its row sums: O = W V / s."""

    @staticmethod
    def forward(
        ctx: Any, unit: Tensor, values: Tensor, temperature: float | None, block: int
    ) -> Tensor:
        wide = torch.promote_types(unit.dtype, torch.float32)
        total = torch.zeros(values.shape, dtype=wide, device=values.device)
        sums = torch.zeros((*values.shape[:2], 1), dtype=wide, device=values.device)
        for rows, columns in _upper_blocks(unit.shape[1], block):
            weights = _weights(unit[:, rows], unit[:, columns], temperature)
            total[:, rows] += weights @ values[:, columns]
            sums[:, rows] += weights.sum(2, keepdim=True, dtype=wide)
            if rows != columns:
                weights = weights.transpose(1, 2)
                total[:, columns] += weights @ values[:, rows]
                sums[:, columns] += weights.sum(2, keepdim=True, dtype=wide)
        result = total.div_(sums.clamp_min_(SMALLEST_SUM))
        ctx.save_for_backward(unit, values, result, sums)
        ctx.temperature, ctx.block = temperature, block
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Per pair (m, n): dW = g_m v_n + c_m, g = dO / s, c = -g O.

        As the cosine is symmetric, the gradient of a block of it is f' (dW + dW^T), and is used for
        both of the block's sides.
        """
        unit, values, result, sums = ctx.saved_tensors
        scaled = gradients[0] / sums
        offset = -(scaled * result).sum(2, keepdim=True)
        scaled, offset = scaled.to(unit.dtype), offset.to(unit.dtype)
        d_unit, d_values = torch.zeros_like(unit), torch.zeros_like(values)
        for rows, columns in _upper_blocks(unit.shape[1], ctx.block):
            weights = _weights(unit[:, rows], unit[:, columns], ctx.temperature)
            slope = scaled[:, rows] @ values[:, columns].transpose(1, 2) + offset[:, rows]
            if rows == columns:
                slope = slope + slope.transpose(1, 2)
            else:
                slope.baddbmm_(values[:, rows], scaled[:, columns].transpose(1, 2))
                slope += offset[:, columns].transpose(1, 2)
            if ctx.temperature is None:
                slope.masked_fill_(weights == 0, 0)
            else:
                slope.mul_(weights).div_(ctx.temperature)
            d_unit[:, rows] += slope @ unit[:, columns]
            d_values[:, rows] += weights @ scaled[:, columns]
            if rows != columns:
                d_unit[:, columns] += slope.transpose(1, 2) @ unit[:, rows]
                d_values[:, columns] += weights.transpose(1, 2) @ scaled[:, rows]
        return d_unit, d_values, None, None


def _upper_blocks(num_pixels: int, block: int) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, columns) of the blocks on and above the diagonal."""
    blocks = [slice(start, min(start + block, num_pixels)) for start in range(0, num_pixels, block)]
    for index, rows in enumerate(blocks):
        for columns in blocks[index:]:
            yield rows, columns


def _weights(first: Tensor, second: Tensor, temperature: float | None) -> Tensor:
    """Return f(cosine) of two sets of pixels, before the division by the row sum."""
    cosine = first @ second.transpose(1, 2)
    if temperature is None:
        return cosine.relu_()
    # A softmax is the same after any shift; a cosine is at most 1, so no exponent is above 0.
    return cosine.sub_(1).div_(temperature).exp_()
