"""One process of a training: alone, or one rank of several. Plain torch, no launcher.

Whatever starts the processes (Ray Train, torchrun, a test) initialises torch.distributed.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsss.training.execution import Execution, keep_freed_memory


@dataclass(frozen=True)
class Process:
    """Rank `rank` of `world_size`, computing on `device`, as `execution` says."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    execution: Execution = field(default_factory=Execution)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return a module whose backward averages gradients over the ranks.

        Buffers are not synchronised: batch statistics are frozen, or each rank keeps its own.
        """
        if self.world_size == 1:
            return model
        # Torch 2.14 deprecates the argument, and advises False until its removal.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of equally shaped values over the ranks."""
        if self.world_size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def gather(self, item: Any) -> list[Any]:
        """Return every rank's item, in rank order, on every rank."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item)
        return items

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            dist.barrier()


ALONE = Process()
"""One that works alone, on the CPU."""


def pick_device(cpus: float | None = None) -> torch.device:
    """Return the current GPU if torch sees one, else the CPU; set how this process uses the CPU.

    cpus: threads that torch may use, at least one; None: torch's default. On the CPU, freed memory
    is kept (execution.py).
    """
    if cpus is not None:
        torch.set_num_threads(max(1, int(cpus)))
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    keep_freed_memory()
    return torch.device("cpu")
