"""What a run in MLflow should hold, as plain data; tracker.py logs it.

A subject (a sweep, a search, a headline) describes a parent run, and a child run per trial or
network. Everything in a description is read from the store.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sweeps.store.code_version import code_version, commit_of
from sweeps.store.rooms import Kind
from sweeps.store.store import Store
from wsss.config import DataConfig

if TYPE_CHECKING:
    from torch import nn

    from sweeps.plan.search import Search
    from sweeps.plan.sweep import Sweep

ROLE, WARNING, FAILURE = "wsss.role", "wsss.warning", "wsss.failure"
RUN_ID, CAM_ID = "wsss.run_id", "wsss.cam_id"
MAX_MESSAGE_LENGTH = 400

Values = Mapping[str, float | None]
"""Values by metric name. None, nan and infinity are not logged."""


@dataclass(frozen=True)
class AtEnd:
    """What a run holds at its end, logged at once."""

    mark: str
    """Name of a value; a run that lacks it has none of this yet."""
    values: Values
    """At step 0. Those that a run of an older version lacks are added."""
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[tuple[Path, str], ...] = ()
    """(file, folder among the run's artifacts or "")."""
    network: "Callable[[], nn.Module] | None" = None
    """Loads the network for `mlflow.pytorch.load_model`; called if the run has none. Raises
    ForeseenError if it is lost."""


@dataclass(frozen=True)
class RunView:
    """One run. It is found by its key, and created once it has started."""

    id: str
    """Its id among the children of its subject."""
    key: Mapping[str, str]
    """Tags that identify it in the experiment."""
    name: str
    status: str = "RUNNING"
    """RUNNING, FINISHED, FAILED or KILLED."""
    started: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    """Added if the run lacks them, never changed: a shared run stays under its first owner."""
    current_tags: Mapping[str, str | None] = field(default_factory=dict)
    """Kept up to date; None: deleted."""
    list_tags: Mapping[str, str] = field(default_factory=dict)
    """Appended, with a comma, to what the tag lists."""
    params: Mapping[str, Any] = field(default_factory=dict)
    data: DataConfig | None = None
    """MLflow shows it as a data set for training and one for evaluation."""
    data_folder: Path = Path()
    epochs: Mapping[int, Values] = field(default_factory=dict)
    """Ascending from 1. Those after MLflow's last one are logged."""
    at_end: AtEnd | None = None


@dataclass(frozen=True)
class Summary:
    """What a parent run holds about all of its children."""

    values: Values
    step: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """Artifact's file name -> content."""


class Tracked(ABC):
    """A sweep, a search or a headline as runs of one experiment."""

    kind: Kind
    experiment: str
    note: str
    """Text of the experiment's page, which explains its metrics."""
    role: str
    """Value of the tag ROLE of its children."""
    id_tag: str
    """Tag that has a child's id."""
    shown: tuple[str, ...]
    """The main metrics. Children are sorted by the first, highest first."""
    params: Mapping[str, Any] = MappingProxyType({})
    """The parent run's settings."""
    parent_tags: Mapping[str, str] = MappingProxyType({})
    """Of the parent run alone."""

    def __init__(
        self, store: Store, name: str, settings: "Sweep | Search", description: str, command: str
    ) -> None:
        """settings: what its runs have in common; command: that of `sweeps` that runs it."""
        self.store, self.name, self.settings = store, name, settings
        data = settings.base.data
        self.tags = {
            "wsss.preset": settings.preset,
            "wsss.data": f"{data.name}:{data.fingerprint}",
            "mlflow.note.content": description,
            "mlflow.source.name": f"sweeps {command}",
            "mlflow.source.type": "LOCAL",
        }

    def run(self, *, tags: Mapping[str, str], **more: Any) -> RunView:
        """Return one of its runs, with what all have in common."""
        same: dict[str, Any] = {"data": self.settings.base.data, "data_folder": self.settings.data}
        return RunView(tags={**self.tags, **tags}, **same | more)

    def parent(self) -> RunView:
        """Return the parent run."""
        return self.run(
            id=self.name,
            key={f"wsss.{self.kind}": self.name, ROLE: self.kind},
            name=f"{self.kind} {self.name}",
            status="KILLED",  # until its children run
            tags={**git_tags(code_version()), **self.parent_tags},
            params=self.params,
        )

    @abstractmethod
    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterable[RunView]:
        """Return the runs with these ids, or all; `running` holds the ids of those running now."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of all children, for a progress bar."""

    def report_says(self) -> Summary | None:
        """Return a summary of the report, if there is one."""
        return None

    def progress(self) -> Summary | None:
        """Return the parent's summary while children run, if there is one."""
        return None

    @abstractmethod
    def left(self) -> list[str | None]:
        """Return why each child that is not finished has failed; None if it has not."""

    def status(self) -> str:
        """Return MLflow's status of the parent, as in the store; FAILED: nothing else is left."""
        left = self.left()
        return "KILLED" if None in left else "FAILED" if left else "FINISHED"

    @abstractmethod
    def closing(self) -> Summary:
        """Return the parent's summary at the end."""


def git_tags(recorded: str) -> dict[str, str]:
    """Return the tags by which MLflow shows the commit of a recorded code version."""
    known = commit_of(recorded)
    if known is None:
        return {}
    commit, is_dirty = known
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(is_dirty).lower()}


def message_tags(warnings: Iterable[object], failure: str | None) -> dict[str, str | None]:
    """Return the tags for warnings and for the reason of a failure, if there is one.

    A failed training has no warnings.
    """
    warning = "; ".join(str(warning) for warning in warnings if warning and not failure)
    return {
        WARNING: warning[:MAX_MESSAGE_LENGTH] or None,
        FAILURE: (failure or "")[:MAX_MESSAGE_LENGTH] or None,
    }


def status(result: dict[str, Any] | None, failure: str | None, *, running: bool) -> str:
    """Return MLflow's status of a run, from its result and why it failed, as in the store."""
    if result:
        return "FINISHED"
    if running:
        return "RUNNING"
    return "FAILED" if failure else "KILLED"
