"""The sweeps, searches and headlines of a store that MLflow can show."""

from dataclasses import dataclass

from sweeps.plan.chains.headline import load_headline
from sweeps.plan.search import load_search
from sweeps.plan.sweep import load_sweep
from sweeps.store.rooms import OF_KIND, Kind
from sweeps.store.store import Store
from sweeps.track.runs.headline import HeadlineRuns
from sweeps.track.runs.search import SearchRuns
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.view import Tracked

KINDS = (SweepRuns, SearchRuns, HeadlineRuns)


@dataclass(frozen=True)
class Known:
    """A subject by its name."""

    store: Store
    kind: Kind
    name: str

    @property
    def title(self) -> str:
        """Its name for a person."""
        return f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Its folder in the store."""
        return f"{OF_KIND[self.kind]}/{self.name}"

    def describe(self) -> Tracked:
        """Read it. Raises StoreError or ConfigError if this version cannot."""
        if self.kind == "sweep":
            return SweepRuns(self.store, load_sweep(self.store, self.name))
        if self.kind == "search":
            return SearchRuns(self.store, load_search(self.store, self.name))
        return HeadlineRuns(self.store, load_headline(self.store, self.name))


def known_subjects(store: Store) -> list[Known]:
    """Return all subjects of a store; headlines last, as they link to runs of sweeps."""
    return [
        Known(store, kind, path.parent.name)
        for kind in OF_KIND
        for path in store.descriptions(kind)
    ]
