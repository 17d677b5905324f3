"""What a run in MLflow should hold, as plain data. How it gets there is tracker.py's concern.

A subject (a sweep, a search, a headline) describes a parent run and a child run per training or
network. Everything in a description is read from the store, which is the truth.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sweeps.store.code_version import commit_of
from wsss.config import DataConfig

if TYPE_CHECKING:
    from torch import nn

ROLE, WARNING, FAILURE = "wsss.role", "wsss.warning", "wsss.failure"
RUN_ID, CAM_ID = "wsss.run_id", "wsss.cam_id"
MAX_MESSAGE_LENGTH = 400

Values = Mapping[str, float | None]
"""Figures by metric name. None and what is not finite are left out."""


class DatasetView(NamedTuple):
    """The data set of a run, which MLflow shows as one for training and one for evaluation."""

    data: DataConfig
    folder: Path


class RunLink(NamedTuple):
    """A run of another experiment, by tags: of several alternatives, the first that is there."""

    experiment: str
    alternatives: tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """What a run holds at its end, logged once as a whole."""

    mark: str
    """The value without which a run lacks all of this."""
    values: Values
    """At step 0. Those which a run of an older version lacks are added to it."""
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[tuple[Path, str], ...] = ()
    """(file, folder among the run's artifacts or "")."""
    network: "Callable[[], nn.Module] | None" = None
    """Loads the network which `mlflow.pytorch.load_model` shall give back, unless MLflow has one of
    the run. Raises ForeseenError if it is lost."""


@dataclass(frozen=True)
class RunView:
    """One run. It is found by its key, and made if there is none and it has started."""

    id: str
    """Names it among the children of its subject."""
    key: Mapping[str, str]
    """The tags that no other run of the experiment has."""
    name: str
    status: str = "RUNNING"
    """RUNNING, FINISHED, FAILED or KILLED."""
    started: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    """Added if the run lacks them, and never changed: a shared run stays under its first owner."""
    current_tags: Mapping[str, str | None] = field(default_factory=dict)
    """Kept as they are here; None: the run must not have it."""
    list_tags: Mapping[str, str] = field(default_factory=dict)
    """Added to what the tag lists already, with a comma."""
    links: Mapping[str, RunLink] = field(default_factory=dict)
    """Tag -> the run whose MLflow id it shall hold, once MLflow has that run."""
    params: Mapping[str, Any] = field(default_factory=dict)
    dataset: DatasetView | None = None
    epochs: Mapping[int, Values] = field(default_factory=dict)
    """Ascending from 1. Those behind the last one that MLflow has are logged."""
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Summary:
    """What a parent run says of all its children."""

    values: Values
    step: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    """File name -> content, among the artifacts."""


class Subject(ABC):
    """A sweep, a search or a headline as runs of one experiment."""

    experiment: str
    note: str
    """What the experiment's page says: what its figures mean."""
    role: str
    """Value of the tag ROLE of its children."""
    shown: tuple[str, ...]
    """The metrics that matter. By the first the children are sorted, the highest first."""
    addresses: Path | None = None
    """The file that shall say which run is where in MLflow, for links in a report."""

    report: Path | None = None
    """The folder of its report, if it has one."""

    @abstractmethod
    def parent(self) -> RunView:
        """Return the run above all others."""

    @abstractmethod
    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterable[RunView]:
        """Return the runs of these ids, or all of them; `running` holds the ids now at work."""

    def report_says(self) -> Summary | None:
        """Return what the report comes to, if its kind of report comes to numbers."""
        return None

    def progress(self) -> Summary | None:
        """Return what the parent says while the children run, if anything."""
        return None

    @abstractmethod
    def is_complete(self) -> bool:
        """Whether nothing is left to do, as far as the store says."""

    @abstractmethod
    def closing(self) -> Summary:
        """Return what the parent says at the end."""


def common_tags(preset: str, data: DataConfig, description: str) -> dict[str, str]:
    """Return the tags that say under which settings a run stands."""
    return {
        "wsss.preset": preset,
        "wsss.data": f"{data.name}:{data.fingerprint}",
        "mlflow.note.content": description,
    }


def git_tags(recorded: str) -> dict[str, str]:
    """Return the tags in which MLflow shows the commit of a recorded version of the code."""
    known = commit_of(recorded)
    if known is None:
        return {}
    commit, is_dirty = known
    return {"mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(is_dirty).lower()}


def message_tags(warnings: Iterable[object], failure: str) -> dict[str, str | None]:
    """Return the tags of what a training is warned of, and of why it failed; "" if it did not.

    A training that failed is warned of nothing more.
    """
    warning = "; ".join(str(warning) for warning in warnings if warning and not failure)
    return {
        WARNING: warning[:MAX_MESSAGE_LENGTH] or None,
        FAILURE: failure[:MAX_MESSAGE_LENGTH] or None,
    }


def status(result: dict[str, Any] | None, failure: dict[str, Any] | None, *, running: bool) -> str:
    """Return MLflow's status of a run, from what its folder in the store holds."""
    if result:
        return "FINISHED"
    if running:
        return "RUNNING"
    return "FAILED" if failure else "KILLED"
