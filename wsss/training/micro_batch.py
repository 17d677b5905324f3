"""How many images share a forward where a whole batch does not fit the GPU's memory."""

from collections.abc import Callable

import torch

from wsss.errors import ForeseenError

MARGIN = 0.85
"""Share of the free memory that is planned with: kernels need some, and memory is cut up."""


class MicroBatchError(ForeseenError, ValueError):
    """A micro-batch that cannot be; the message says which can."""


def check_micro_batch(micro_batch: int | None, local_batch: int, *, frozen_norm: bool) -> None:
    """Raise MicroBatchError for a part of a batch that would not train as the whole does."""
    if micro_batch is not None and micro_batch < local_batch and not frozen_norm:
        raise MicroBatchError(
            f"--micro-batch {micro_batch}: the batch norms take their statistics from all "
            f"{local_batch} images of a forward, so parts would train another network; leave the "
            "option out, or set network.batch_norm=frozen"
        )


def fitting(local_batch: int, bytes_of_one: int, bytes_of_two: int, free_bytes: int) -> int:
    """Return the largest micro-batch that fits, of those which cut the batch into equal parts.

    bytes_of_one, bytes_of_two: peak memory of a forward and backward of one and of two images,
    which tell what each image takes and what is taken anyway. Raises MicroBatchError if not even
    one image fits.
    """
    each = max(1, bytes_of_two - bytes_of_one)
    fixed = max(0, bytes_of_one - each)
    fit = int((MARGIN * free_bytes - fixed) // each)
    if fit < 1:
        raise MicroBatchError(
            f"a forward of one image takes {bytes_of_one / 2**30:.1f} GiB, but "
            f"{MARGIN * free_bytes / 2**30:.1f} of the GPU's memory can be used; lower "
            "train.crop_size, set train.precision=bf16, or use a larger GPU"
        )
    return max(n for n in range(1, local_batch + 1) if local_batch % n == 0 and n <= fit)


def measured(
    try_images: Callable[[int], None], local_batch: int, *, device: torch.device, gpu_share: float
) -> int:
    """Return the micro-batch that this GPU's free memory allows, from a forward of 1 and 2 images.

    try_images: does a forward and backward of so many images, and keeps nothing.
    """
    if local_batch == 1:
        return 1
    peaks = []
    for count in (1, 1, 2):  # the first one also loads kernels
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try_images(count)
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    allowed = min(free, int(gpu_share * total) - torch.cuda.memory_allocated(device))
    return fitting(local_batch, peaks[1], peaks[2], allowed)
