"""What the host reads of each step, without waiting for the GPU that computes it."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LAG = 8
"""Steps by which the host is ahead of a GPU: enough to keep it busy, few enough to end in time."""


class Reading(NamedTuple):
    """The numbers of one step, on the host."""

    iteration: int
    """How many are done with this one."""
    values: NDArray[np.float32]


class Readings:
    """Small results of steps on their way to the host, in order.

    On a GPU each is copied behind the step, into pinned memory, and read LAG steps later, when it
    has long arrived. Every rank reads the same step at the same time. On the CPU there is no lag.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.lag = LAG if self.on_gpu else 0
        self.waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def post(self, iteration: int, values: Tensor) -> None:
        """Send the values [N] of an iteration on their way."""
        copied = None
        if self.on_gpu:
            on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = on_host.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self.waiting.append((iteration, values, copied))

    def arrived(self, *, all_of_them: bool = False) -> Iterator[Reading]:
        """Yield what is due; all_of_them: also what is not, waiting for the GPU."""
        while len(self.waiting) > (0 if all_of_them else self.lag):
            iteration, values, copied = self.waiting.popleft()
            if copied is not None:
                copied.synchronize()
            yield Reading(iteration, values.numpy())
