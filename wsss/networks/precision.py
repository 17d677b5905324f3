"""The precision in which a network computes: fp32, tf32 or bf16.

| name | what it is                                                                            |
|------|---------------------------------------------------------------------------------------|
| fp32 | float32 throughout, 24 bits of mantissa                                               |
| tf32 | float32 tensors, whose products a GPU from Ampere on computes with 11 bits; on older  |
|      | cards and on CPUs the same as fp32                                                    |
| bf16 | torch's autocast: convolutions and matrix products in bfloat16 (8 bits), losses and   |
|      | weights in float32; float32 products as in tf32                                       |

docs/gpu.md says which one to choose.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wsss.config import Precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of a forward: bfloat16 where the precision asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def forward_in(device: torch.device, precision: Precision) -> Iterator[None]:
    """Within this context, inference computes in the given precision."""
    with products(precision), autocast(device, precision):
        yield


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Within this context, a GPU computes float32 products accordingly, also in a backward pass."""
    # The older of torch's two interfaces: its compiler still reads this one, and torch refuses to
    # read it once the other was used.
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision != "fp32"
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
