"""Each pixel's mean over similar pixels (Eq. 3), without the N x N affinity in memory.

The cosine of two pixels is symmetric, so only blocks on and above the diagonal are computed, each
while it lies in the cache, and computed again in the backward pass rather than kept: fewer
multiplications than the full matrix takes, and memory that grows with N rather than N^2.

Legend: B batch, N pixels, C channels, R pixels of a block.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

BLOCK_PIXELS = 512
"""R: a block has R^2 entries per image, 1 MiB in fp32."""

SMALLEST_SUM = 1e-6
"""A pixel's cosine with itself is 1, so a row sums to at least 1, unless its features are all 0."""


def associate(unit: Tensor, values: Tensor, *, temperature: float | None) -> Tensor:
    """Weighted mean of `values` by the cosine of unit vectors, for all pairs of pixels.

    unit: [B, N, C] of length 1 (or all 0); values: [B, N, C']. Returns [B, N, C'], in fp32 or the
    wider type of the input. With no temperature the weights are ReLU(cosine) over their row sum,
    else softmax(cosine / temperature). Under autocast, products are taken in its type.
    """
    device = unit.device.type
    if torch.is_autocast_enabled(device):
        unit, values = (x.to(torch.get_autocast_dtype(device)) for x in (unit, values))
    with torch.autocast(device, enabled=False):  # the backward pass is never under it
        result: Tensor = _Association.apply(unit, values, temperature)
    return result


class _Association(torch.autograd.Function):
    """With W = f(U U^T), f ReLU or exp, and s its row sums: O = W V / s."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, values: Tensor, temperature: float | None) -> Tensor:
        wide = torch.promote_types(unit.dtype, torch.float32)
        total = torch.zeros(values.shape, dtype=wide, device=values.device)
        sums = torch.zeros((*values.shape[:2], 1), dtype=wide, device=values.device)
        weights = unit.new_empty(0)
        for rows, columns in _upper_blocks(unit.shape[1]):
            weights = _weights(unit[:, rows], unit[:, columns], temperature)
            total[:, rows] += weights @ values[:, columns]
            sums[:, rows] += weights.sum(2, keepdim=True, dtype=wide)
            if rows != columns:
                weights = weights.transpose(1, 2)
                total[:, columns] += weights @ values[:, rows]
                sums[:, columns] += weights.sum(2, keepdim=True, dtype=wide)
        result = total.div_(sums.clamp_min_(SMALLEST_SUM))
        only = weights if unit.shape[1] <= BLOCK_PIXELS else None  # small enough to be kept
        ctx.save_for_backward(unit, values, result, sums, only)
        ctx.temperature = temperature
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Per pair (m, n): dW = g_m v_n + c_m, g = dO / s, c = -g O.

        As the cosine is symmetric, the gradient of a block of it is f' (dW + dW^T), and is used for
        both of the block's sides.
        """
        unit, values, result, sums, only = ctx.saved_tensors
        scaled = gradients[0] / sums
        offset = -(scaled * result).sum(2, keepdim=True)
        scaled, offset = scaled.to(unit.dtype), offset.to(unit.dtype)
        d_unit, d_values = torch.zeros_like(unit), torch.zeros_like(values)
        for rows, columns in _upper_blocks(unit.shape[1]):
            weights = only
            if only is None:
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
        return d_unit, d_values, None


def _upper_blocks(num_pixels: int) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, columns) of the blocks on and above the diagonal."""
    blocks = [
        slice(start, min(start + BLOCK_PIXELS, num_pixels))
        for start in range(0, num_pixels, BLOCK_PIXELS)
    ]
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
