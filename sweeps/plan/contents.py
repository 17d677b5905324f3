"""What a store holds: an entry per sweep, search and headline; and what removing one deletes."""

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from sweeps.plan.chains.headline import load_headline
from sweeps.plan.search import History, best_trials, load_search
from sweeps.plan.states import folder_names
from sweeps.plan.sweep import load_sweep
from sweeps.plan.trials import best_configuration
from sweeps.store.errors import StoreError
from sweeps.store.records import AGAIN
from sweeps.store.rooms import DONE, ROOMS, STAGES, Driven
from sweeps.store.store import Store
from wsss.basics.files import files_in, refuse_pipe
from wsss.basics.printable import printable
from wsss.identity import ID_LENGTH, cam_id
from wsss.recipes import preset_and_recipe

OF_A_TRIAL = ("runs", "counts", "cams")
"""Rooms of a trial's score and training, in the order in which they are removed."""

RunMetrics = Callable[[str], dict[str, Any] | None]
"""Figures of a finished run by its id; StoreError if they are damaged."""


@dataclass(frozen=True)
class Entry(Driven):
    """A sweep, search or headline of a store, and what it holds."""

    changed: float
    """When its description was last written, in seconds since 1970."""
    tables: tuple[str, ...] = ()
    data: str = ""
    preset: str = ""
    recipe: str = ""
    done: int = 0
    """Finished trials; of a search, ended ones; of a headline, networks in its report."""
    total: int | None = None
    """None for a search, which can always be extended."""
    best: str = ""
    """The best cell, trial, or source of labels."""
    best_miou: float | None = None
    """Percent: a cell's mIoU at the fixed score, mean over its seeds; a search's objective; a
    headline's segmentation mIoU."""
    problem: str = ""
    """Why it cannot be read."""
    trainings: frozenset[str] = field(default=frozenset(), repr=False)
    """cam_id of each."""
    scores: Mapping[str, str] = field(default_factory=dict, repr=False)
    """run_id of each -> cam_id of its training."""


def read_entries(store: Store) -> list[Entry]:
    """Return all sweeps, searches and headlines in a store, the newest first."""
    metrics = cache(lambda run_id: store.run(run_id).result())
    entries = [_read(store, what, metrics) for what in store.driven()]
    return sorted(entries, key=lambda entry: (-entry.changed, entry.name))


def _read(store: Store, what: Driven, metrics: RunMetrics) -> Entry:
    path = store.root / what.description
    entry = Entry(what.kind, what.name, path.stat().st_mtime)
    try:
        if what.kind == "sweep":
            return _read_sweep(store, entry, metrics)
        return _read_search(store, entry) if what.kind == "search" else _read_headline(store, entry)
    except StoreError as error:
        problem = str(error)
    except (ValueError, OSError) as error:  # one that is not accessible, or a folder
        problem = f"{path}: cannot be read ({type(error).__name__}: {error})"
    return replace(entry, problem=problem)


def _read_sweep(store: Store, entry: Entry, metrics: RunMetrics) -> Entry:
    sweep = load_sweep(store, entry.name)
    trials = sweep.plan.trials
    done = {t.run_id: found["miou_fixed"] for t in trials if (found := metrics(t.run_id))}
    best, miou = best_configuration(sweep.plan, done) or ((), None)
    preset, recipe = preset_and_recipe(sweep.preset)
    return replace(
        entry,
        tables=sweep.table_names,
        data=sweep.base.data.name,
        preset=preset,
        recipe=recipe,
        done=len(done),
        total=len(trials),
        best=best[0].cells[0] if best else "",
        best_miou=miou,
        trainings=frozenset(t.cam_id for t in trials),
        scores={t.run_id: t.cam_id for t in trials},
    )


def _read_search(store: Store, entry: Entry) -> Entry:
    search = load_search(store, entry.name)
    history = History(search, store)
    trials = history.trials()
    best = next(iter(best_trials(trials, 1)), None)
    preset, recipe = preset_and_recipe(search.preset)
    return replace(
        entry,
        data=search.base.data.name,
        preset=preset,
        recipe=recipe,
        done=sum(trial.ended for trial in trials),
        best=best.name if best else "",
        best_miou=best.objective if best else None,
        trainings=frozenset(trial.cam_id for trial in trials) | history.held_out().keys(),
    )


def _read_headline(store: Store, entry: Entry) -> Entry:
    headline = load_headline(store, entry.name)
    mious = _reported_mious(headline.report_folder(store) / "headline.csv")
    best = max(mious, key=mious.__getitem__, default="")
    preset, recipe = preset_and_recipe(headline.sweep.preset)
    return replace(
        entry,
        tables=(headline.cell,),
        data=headline.sweep.base.data.name,
        preset=preset,
        recipe=recipe,
        done=len(mious),
        total=len(headline.chains),
        best=best,
        best_miou=mious.get(best),
        trainings=frozenset(cam_id(chain.run) for chain in headline.chains if chain.labels),
    )


def _reported_mious(path: Path) -> dict[str, float]:
    """Return the mIoU of a headline's networks by name, from its report; {} without one.

    From a bucket, reports are downloaded but predictions are not. Raises StoreError.
    """
    refuse_pipe(path, StoreError)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {
                line["method"]: float(line["percent"])
                for line in csv.DictReader(file)
                if line["origin"].startswith("measured")
                and line["percent"]
                and (line["table"], line["quantity"]) == ("I", "mIoU")
            }
    except FileNotFoundError:
        return {}
    except (csv.Error, AttributeError, KeyError, ValueError) as error:
        why = f"not what `sweeps headline` writes ({error})"
        raise StoreError(f"{path}: {why}; {AGAIN}") from None


# Removing


@dataclass(frozen=True)
class Removal:
    """What removing an entry deletes."""

    entry: Entry
    results: tuple[str, ...] = ()
    """Folders of scores, counts and trainings, <room>/<id>, in the order of deletion."""
    num_kept: int = 0
    """Number of its trainings that something else uses."""

    @property
    def folders(self) -> tuple[str, ...]:
        """All folders, the entry's own last, so that an interrupted removal can be repeated."""
        return (*self.results, self.entry.path)


def plan_removal(store: Store, name: str, *, results: bool) -> Removal:
    """Return what removing a sweep, search or headline deletes.

    results: also its scores and trainings, unless another entry uses them, or pseudo-labels or
    segmentation networks were made from them. Raises StoreError for an unknown name, and with
    `results` if any entry cannot be read, as it is not known what that one uses.
    """
    entries = read_entries(store)
    named = [entry for entry in entries if entry.name == name]
    if not named:
        there = ", ".join(entry.name for entry in entries) or "none"
        raise StoreError(
            f"{store.address}: no sweep, search or headline {printable(name)}; there are: "
            f"{printable(there)}"
        )
    entry = named[0]
    if not results:
        return Removal(entry)
    for room in STAGES:  # from a bucket, only what reports read is here so far
        store.folder(room).pull({DONE})
    _require_readable(store)
    for other in entries:
        if other.problem:
            raise StoreError(
                f"{other.problem}; until {other.name} can be read or is removed without "
                "--results, it is not known which trainings it uses"
            )
    others = [other for other in entries if other is not entry]
    made_of = _made_of(store)
    used = made_of.union(*(other.trainings for other in others))
    trainings = entry.trainings - used
    runs, counts, cams = (folder_names(store.root / room) for room in OF_A_TRIAL)
    scores = {run for run, cam in entry.scores.items() if cam not in made_of}
    removed = {
        "runs": scores.difference(*(other.scores for other in others)) & runs,
        "counts": {
            name
            for name in counts
            if re.fullmatch(f"[0-9a-f]{{{ID_LENGTH}}}", name)  # no folder or link of anything else
            if store.folder(f"counts/{name}").result() is None  # or half removed: of use to nobody
            or _training_of(store, f"counts/{name}") in trainings
        },
        "cams": trainings & cams,
    }
    found = tuple(f"{room}/{name}" for room, names in removed.items() for name in sorted(names))
    return Removal(entry, found, len(entry.trainings & used & cams))


def _require_readable(store: Store) -> None:
    """Raise StoreError if a link to what may use trainings leads nowhere, as of a missing disk."""
    for room in (room for room in ROOMS if room.name not in OF_A_TRIAL):
        for folder in files_in(store.root / room.name, "*"):
            for path in (folder, folder / room.mark):
                if path.is_symlink() and not path.exists():
                    raise StoreError(
                        f"{path}: a broken link, so that it is not known which trainings are used; "
                        "restore what it leads to, or delete it"
                    )


def _made_of(store: Store) -> frozenset[str]:
    """Return the cam_ids of trainings that something else than their scores was made from."""
    rooms = (room for room in STAGES if room not in OF_A_TRIAL)
    rels = (f"{room}/{name}" for room in rooms for name in folder_names(store.root / room))
    return frozenset(need for rel in rels if (need := _training_of(store, rel)))


def _training_of(store: Store, rel: str) -> str | None:
    """Return the cam_id of the training that a finished stage was made from."""
    found = (store.folder(rel).result() or {}).get("made_from", {}).get("cams")
    return str(found) if found else None
