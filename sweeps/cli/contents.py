"""The commands `sweeps list` and `sweeps rm`: what a store holds."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import StoreOption, leave_memory_to_the_system, opened, say
from wsss.errors import explained

if TYPE_CHECKING:
    from sweeps.plan.contents import Removal
    from sweeps.store.store import Store


def rm(
    name: Annotated[str, typer.Argument(help="as `sweeps list` shows it", metavar="NAME")],
    store: StoreOption = "results",
    with_results: Annotated[
        bool, typer.Option("--results", help="also its trainings and scores that nothing else uses")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be deleted, and delete nothing")
    ] = False,
) -> None:
    """Delete a sweep, search or headline from the store, here and in the bucket.

    Without --results, its trainings and scores stay, and the same `sweeps run` finds them again.
    MLflow keeps its runs.
    """
    from sweeps.plan.contents import plan_removal
    from sweeps.store.store import StoreError

    with explained():
        results = opened(store)
        removal = plan_removal(results, name, results=with_results)
        print("\n".join(_what_goes(results, removal)))
        if dry_run:
            return
        if not yes and not sys.stdin.isatty():
            raise StoreError(f"{name}: nobody is here to be asked; give --yes to delete it")
        if not yes and not typer.confirm("Delete this?"):
            say("nothing was deleted")
            raise typer.Exit(1)
        results.check_writable()
        busy = _remove(results, name, with_results=with_results)
        for rel in busy:
            say(f"{rel}: kept, as a process is at work on it")
        print(f"deleted {name}")


def _what_goes(store: "Store", removal: "Removal") -> Iterator[str]:
    """Yield what a removal deletes, in words: its folders by name, with their size here."""
    paths = [path for rel in removal.folders for path in (store.root / rel).rglob("*")]
    megabytes = sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
    yield f"{removal.entry.title}: {megabytes:,.1f} MB to delete"
    yield from (f"  {store.root / rel}" for rel in removal.folders)
    if removal.num_kept:
        yield f"kept: {removal.num_kept} of its trainings, which something else uses"


def _remove(store: "Store", name: str, *, with_results: bool) -> tuple[str, ...]:
    """Delete an entry as its only driver; return the results at which a process is at work.

    What goes is planned again under the lock: a sweep may have been started since.
    """
    from filelock import Timeout

    from sweeps.plan.contents import plan_removal
    from sweeps.run.driver import driving

    removal, busy = plan_removal(store, name, results=with_results), []
    entry = removal.entry
    with driving(store, entry.path, entry.title, "wait for its end or end it, then remove it"):
        for rel in removal.results:
            with ExitStack() as stack:
                try:
                    stack.enter_context(store.folder(rel).lock().acquire(timeout=0))
                except Timeout:
                    busy.append(rel)
                    continue
                store.remove(rel)
        store.remove(entry.path)
    return tuple(busy)


def list(
    store: StoreOption = "results",
    in_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
) -> None:
    """List the store's sweeps, searches and headlines, the newest first."""
    from rich.console import Console

    from sweeps.plan.contents import read_entries
    from sweeps.report.live.entries import as_json, print_entries

    leave_memory_to_the_system()
    with explained():
        results = opened(store)
        entries = read_entries(results)
        if in_json:
            print(json.dumps([as_json(entry) for entry in entries]))
        elif entries:
            print_entries(Console(), entries)
        else:
            print(f"{results.address}: no sweep, search or headline yet; `sweeps run` starts one")
