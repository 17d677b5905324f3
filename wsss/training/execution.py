"""How a training is carried out on the machine at hand. Nothing here is part of an id."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """Options of the one training loop; none of them moves a result beyond rounding."""

    num_loader_workers: int | None = None
    """Processes that load data; None: by the machine where a GPU trains, else 0."""
    micro_batch: int | None = None
    """Images of one rank per forward, their gradients added up; None: as many as memory allows."""
    checkpoint_minutes: float = 10.0
    """A checkpoint within an epoch after so many minutes without one; 0: only between epochs."""
    gpu_share: float = 1.0
    """Share of a GPU's memory that this process may fill, in (0, 1]."""
