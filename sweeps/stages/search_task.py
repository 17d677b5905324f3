"""What the process of a search's trial is told. Without torch, as the driver loads it, too."""

from dataclasses import dataclass, field
from typing import Any

from sweeps.store.store import Store, open_store
from wsss.training.execution import Execution


@dataclass(frozen=True)
class SearchTask:
    """What a process needs to run a trial: the experiment, and where things lie on this machine."""

    config: dict[str, Any]
    """RunConfig as JSON; its labels say how CAMs are inferred for judging."""
    objective: str
    """best or fixed."""
    store: str
    data: str
    weights_file: str | None
    execution: Execution = field(default_factory=Execution)
    prior_warns_after: int = 100
    prior_fails_after: int = 500
    """Iterations, as in PriorLimits."""
    remote: str | None = None
    """s3://bucket/prefix; then the store is this machine's mirror of it, whatever `store` says."""

    def open_store(self) -> Store:
        """Return the store as it is on this machine."""
        return open_store(self.remote or self.store)
