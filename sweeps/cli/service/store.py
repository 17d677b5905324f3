"""The content of a store: the commands list, rm, export, verify and ledger."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli import options
from sweeps.store.errors import StoreError
from wsss.basics.printable import command, counted

if TYPE_CHECKING:
    from sweeps.plan.contents import Removal
    from sweeps.store.store import Store


def rm(
    name: Annotated[str, typer.Argument(help="as `sweeps list` shows it")],
    store: options.StoreOption = "results",
    with_results: Annotated[
        bool, typer.Option("--results", help="also its trainings and scores that nothing else uses")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what would be deleted, and delete nothing")
    ] = False,
) -> None:
    """Delete a sweep, search or headline from the store, here and in the bucket.

    sweeps rm NAME --results --dry-run

    Without --results, its trainings and scores are kept, and the same `sweeps run` uses them again.
    MLflow keeps its runs.
    """
    from filelock import Timeout

    from sweeps.plan.contents import plan_removal
    from sweeps.run.driver import SECONDS_TO_LOOK, driving

    results = options.opened(store)
    removal = plan_removal(results, name, results=with_results)
    print("\n".join(_what_goes(results, removal)))
    if dry_run:
        return
    if not yes and not (sys.stdin and sys.stdin.isatty()):
        raise StoreError(f"{name}: no terminal to ask for consent; give --yes to delete it")
    if not yes and not typer.confirm("Delete this?"):
        options.say("nothing was deleted")
        raise typer.Exit(1)
    results.check_writable()
    with driving(results, removal.entry, "wait for its end or end it, then remove it"):
        # Planned again, as a sweep may have been started since.
        for rel in plan_removal(results, name, results=with_results).results:
            try:
                with results.folder(rel).lock().acquire(timeout=SECONDS_TO_LOOK):
                    results.remove(rel)
            except Timeout:
                options.say(f"{rel}: kept, as a process is working on it")
        results.remove(removal.entry.path)
    print(f"deleted {name}")


def _what_goes(store: "Store", removal: "Removal") -> Iterator[str]:
    """Yield what a removal deletes: its folders by name, with their size here and in the bucket."""
    sizes = {
        path.relative_to(store.root).as_posix(): path.stat().st_size
        for rel in removal.folders
        for path in (store.root / rel).rglob("*")
        if path.is_file()
    }
    for rel in removal.folders:
        sizes |= {name: there.size for name, there in store.remote.objects(rel).items()}
    yield f"{removal.entry.title}: {sum(sizes.values()) / 1e6:,.1f} MB to delete"
    yield from (f"  {store.address}/{rel}" for rel in removal.folders)
    if store.remote.url:
        yield "other machines keep their copies until the same command is given there"
    if removal.num_kept:
        yield f"kept: {removal.num_kept} of its trainings, which something else uses"


def list_(store: options.StoreOption = "results", in_json: options.AllAsJson = False) -> None:
    """List the store's sweeps, searches and headlines, the newest first."""
    from rich.console import Console

    from sweeps.plan.contents import read_entries
    from sweeps.report.live.entries import as_json, print_entries

    options.leave_memory_to_the_system()
    results = options.opened(store)
    entries = read_entries(results)
    if in_json:
        print(json.dumps([as_json(entry) for entry in entries]))
    elif entries:
        print_entries(Console(), entries)
    else:
        print(f"{results.address}: no sweep, search or headline yet; `sweeps run` starts one")


def export(
    file: Annotated[Path, typer.Argument(help="the archive, e.g. V.zip")],
    tables: Annotated[
        list[str] | None,
        typer.Argument(help="tables to export; default: those of the sweep", metavar="TABLE"),
    ] = None,
    store: options.StoreOption = "results",
    sweep: options.SweepName = None,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="also the networks, which are large")
    ] = False,
) -> None:
    """Write a sweep into one zip file: report, configurations, figures, counted pixels, versions.

    sweeps export V.zip

    `sweeps verify FILE` checks it on another machine. Unpacked, it is a store for `sweeps report`
    and `sweeps table`. It contains the names of folders and hosts.
    """
    from sweeps.archive.write import export_sweep
    from sweeps.plan.sweep import with_tables

    results, whole = options.opened_sweep(store, sweep)
    found = with_tables(whole, tables or ())
    manifest = export_sweep(found, results, file, checkpoints=checkpoints)
    size = f"{counted(len(manifest.files) + 1, 'file')}, {file.stat().st_size / 2**20:.1f} MiB"
    states = Counter(trial.state for trial in manifest.trials)
    trials = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{file}: {found.name}: {size}; trials: {trials}")
    print(f"next: {command('sweeps', 'verify', file, '--data', whole.data)}")


def verify(
    file: Annotated[Path, typer.Argument(help="what `sweeps export` wrote")],
    data: Annotated[
        str | None, typer.Option(help="folder of the data set, to check that it is the same")
    ] = None,
) -> None:
    """Check an archive of `sweeps export`: files, ids, figures, tables, and with --data the data.

    sweeps verify V.zip --data /data/VOC2012

    Needs no store and trains nothing. Prints what was verified and what cannot be. Exit code 0: all
    that was checked is right; 1: something is wrong; 2: not an archive of `sweeps export`.
    """
    from sweeps.archive.verify import verify

    wrong = 0
    for finding in verify(file, options.data_folder(data) if data else None):
        print(f"{finding.kind:<6}{finding.text}", flush=True)
        wrong += finding.kind == "wrong"
    raise typer.Exit(1 if wrong else 0)


def ledger(
    store: options.StoreOption = "results",
    sweep: options.SweepName = None,
    as_json_: options.AllAsJson = False,
) -> None:
    """Show the cost of a sweep's trials: useful, repeated and lost GPU-hours."""
    from rich.console import Console

    from sweeps.report.live.account import as_json, print_account
    from sweeps.store.attempts import read_book

    results, found = options.opened_sweep(store, sweep)
    name, book = found.name, read_book(results, found.name)
    if as_json_:
        print(json.dumps({"sweep": name} | as_json(book)))
    elif not book.attempts:
        print(f"sweep {name}: its ledger has no attempts yet")
    else:
        print_account(Console(), name, book)
