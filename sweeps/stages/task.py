"""What a trial's process is told: what to run, where things lie, how to behave. Without torch."""

from dataclasses import dataclass, field
from typing import Any

from sweeps.stages.hangs import HANG_AFTER_SECONDS
from sweeps.store.store import Store, open_store
from wsss.training.execution import Execution
from wsss.training.prior import PriorLimits


@dataclass(frozen=True)
class TrialTask:
    """What a worker needs to run a trial: the experiment, and where things lie on this machine."""

    config: dict[str, Any]
    """RunConfig as JSON."""
    store: str
    data: str
    weights_file: str | None
    execution: Execution = field(default_factory=Execution)
    remote: str | None = None
    """s3://bucket/prefix; then the store is this machine's mirror of it, whatever `store` says."""

    def open_store(self) -> Store:
        """Return the store as it is on this machine."""
        return open_store(self.remote or self.store)


@dataclass(frozen=True)
class Conduct:
    """How a trial is to behave when something is not as it should be. Changes no result."""

    hang_after: float = HANG_AFTER_SECONDS
    """Seconds without progress after which a process ends itself; 0: never."""
    accept_changes: bool = False
    """Whether to continue a checkpoint of other code or packages."""
    limits: PriorLimits = field(default_factory=PriorLimits)
    """When a training that is not clearly below the label prior is warned of, and ended."""
