"""What the process of a trial is told: what to run, and where things lie. Without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.stages.stage import Conduct, Place
from sweeps.store.store import Store, open_store
from wsss.training.execution import Execution
from wsss.training.prior import PriorLimits

if TYPE_CHECKING:
    from wsss.training.process import Process


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

    def place(self, process: "Process", conduct: Conduct) -> Place:
        """Return where the work is done."""
        weights_file = Path(self.weights_file) if self.weights_file else None
        return Place(
            self.open_store(), Path(self.data), weights_file, self.execution, conduct, rank=process
        )


@dataclass(frozen=True)
class SearchTask:
    """What a process needs to run a search's trial."""

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

    def place(self, process: "Process") -> Place:
        """Return where the work is done; a search goes on with what was trained by other code."""
        limits = PriorLimits(self.prior_warns_after, self.prior_fails_after)
        task = TrialTask(
            self.config, self.store, self.data, self.weights_file, self.execution, self.remote
        )
        return task.place(process, Conduct(accept_changes=True, limits=limits))
