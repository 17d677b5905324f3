"""What a sweep may use of a machine or a cluster, and how many trials run in it at once."""

from dataclasses import dataclass, field, replace

from sweeps.run.capacity import DRIVER_SHARE, Demand, decide, limits_here, machines_now
from sweeps.run.capacity import HEAD_NODE as HEAD_NODE  # the name by which others import it
from wsss.training.execution import Execution


@dataclass(frozen=True)
class Resources:
    """What a sweep may use. Nothing here changes a result beyond rounding."""

    address: str | None = None
    """Ray cluster to join; None starts one on this machine and ends it with the sweep."""
    workers: int | None = None
    """Ray Train workers per trial as a person asked for them; None: as `num_workers` says."""
    cpus: float = 1.0
    """CPUs per trial, or per worker."""
    gpus: float = 0.0
    """GPUs per trial, or per worker; may be a fraction."""
    max_concurrent: int | None = None
    """Trials at a time; None: as many as fit."""
    execution: Execution = field(default_factory=Execution)
    """How each process trains, within its share of a GPU."""

    def __post_init__(self) -> None:
        share = min(1.0, self.gpus) or 1.0
        object.__setattr__(self, "execution", replace(self.execution, gpu_share=share))

    @property
    def num_workers(self) -> int:
        """Ray Train workers per trial: 1 on GPUs, unless asked for otherwise.

        0 trains inside the Tune trial, which is cheapest for the small trainings of a CPU.
        """
        return int(self.gpus > 0) if self.workers is None else self.workers

    @property
    def inline(self) -> bool:
        """Whether a trial trains in its own Tune process."""
        return self.num_workers == 0

    @property
    def demand(self) -> Demand:
        """What a trial asks for in all: one worker if it trains in its own process."""
        return Demand(max(1, self.num_workers), self.cpus, self.gpus)

    def of_a_trial(self) -> dict[str, float]:
        """Return what Tune reserves for a trial's own process.

        With Train workers it only waits for them: were it to hold a CPU, trials could take what
        their own workers need, and wait for ever.
        """
        if self.inline:
            return {"cpu": self.cpus, "gpu": self.gpus}
        return {HEAD_NODE: DRIVER_SHARE}


def concurrency(resources: Resources) -> int:
    """Return how many trials to run at once, so that workers never wait for each other.

    Raises CapacityError, a StoreError, if not even one can ever run.
    """
    joined = resources.address is not None
    return decide(
        machines_now(),
        resources.demand,
        max_concurrent=resources.max_concurrent,
        limits=limits_here() if joined else None,
        joined=joined,
    )
