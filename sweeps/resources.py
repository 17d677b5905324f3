"""What a sweep may use of a machine or a cluster, and how many trials fit into it at once."""

from dataclasses import dataclass

import ray

from sweeps.store import StoreError

HEAD_NODE = "node:__internal_head__"
"""Ray's resource of the head node, 1.0 of it: up to 1,000 waiting trials."""


@dataclass(frozen=True)
class Resources:
    """What a sweep may use. Nothing here changes a result beyond rounding."""

    address: str | None = None
    """Ray cluster to join; None starts one on this machine and ends it with the sweep."""
    workers: int = 0
    """Ray Train workers per trial; 0 trains inside the Tune trial, which is cheapest."""
    cpus: float = 1.0
    """CPUs per trial, or per worker."""
    gpus: float = 0.0
    """GPUs per trial, or per worker; may be a fraction."""
    max_concurrent: int | None = None
    """Trials at a time; None: as many as fit."""
    loader_workers: int = 0
    """Data loading processes per training process."""

    @property
    def inline(self) -> bool:
        """Whether a trial trains in its own Tune process."""
        return self.workers == 0

    def of_a_trial(self) -> dict[str, float]:
        """Return what Tune reserves for a trial's own process.

        With Train workers it only waits for them: were it to hold a CPU, trials could take what
        their own workers need, and wait for ever.
        """
        return {"cpu": self.cpus, "gpu": self.gpus} if self.inline else {HEAD_NODE: 0.001}


def concurrency(resources: Resources) -> int:
    """Return how many trials fit the cluster at once, so that workers never wait for each other.

    Raises StoreError if not even one does.
    """
    have = ray.cluster_resources()
    per_trial = max(1, resources.workers)
    fits = have.get("CPU", 1) // (resources.cpus * per_trial)
    if resources.gpus:
        fits = min(fits, have.get("GPU", 0) // (resources.gpus * per_trial))
    if fits < 1:
        raise StoreError(
            f"a trial needs {per_trial} x ({resources.cpus:g} CPU, {resources.gpus:g} GPU), the "
            f"cluster has {have.get('CPU', 0):g} CPU and {have.get('GPU', 0):g} GPU; ask for less"
        )
    return int(min(fits, resources.max_concurrent or fits))
