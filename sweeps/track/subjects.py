"""The sweeps, searches and headlines of a store that MLflow can show."""

from sweeps.plan.chains.headline import load_headline
from sweeps.plan.search import load_search
from sweeps.plan.sweep import load_sweep
from sweeps.store.rooms import Driven
from sweeps.store.store import Store
from sweeps.track.runs.headline import ARTIFACTS, HeadlineRuns
from sweeps.track.runs.search import SearchRuns
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.view import Tracked

KINDS = (SweepRuns, SearchRuns, HeadlineRuns)


def runs_of(store: Store, what: Driven) -> Tracked:
    """Read a subject. Raises StoreError or ConfigError if this version cannot."""
    if what.kind == "sweep":
        return SweepRuns(store, load_sweep(store, what.name))
    if what.kind == "search":
        return SearchRuns(store, load_search(store, what.name))
    from sweeps.stages.export import end_stages  # here, as it imports torch

    headline = load_headline(store, what.name)
    for chain in headline.chains:
        for stage in end_stages(headline, chain):  # in a bucket, unless this machine has used them
            store.folder(stage.rel).pull({*ARTIFACTS, "failure.json"})
    return HeadlineRuns(store, headline)
