"""The commands sync and mlflow: log what MLflow lacks, and serve its pages."""

import os
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli import options
from sweeps.report.mlflow_pages import charts_page, table_page
from sweeps.store.errors import StoreError
from sweeps.store.rooms import Driven
from wsss.basics.errors import ForeseenError

if TYPE_CHECKING:
    from sweeps.store.store import Store
    from sweeps.track.tracker import Tracker

HOST = "127.0.0.1"


def sync(
    store: options.StoreOption = "results",
    name: Annotated[
        str | None,
        typer.Option("--sweep", help="name of one sweep, search or headline; default: all"),
    ] = None,
) -> None:
    """Log to MLflow whatever it lacks, e.g. after an outage, a move, or for another server.

    What was deleted in MLflow's UI is restored. What is running logs its results itself.
    """
    from sweeps.run.driver import DrivenError

    results = options.opened(store)
    known = results.driven()
    wanted = [each for each in known if name in (None, each.name)]
    if not wanted:
        raise StoreError(
            f"{results.address}: no sweep, search or headline {name or 'at all'}; there are: "
            f"{', '.join(each.name for each in known) or 'none'}; start one with `sweeps run`"
        )
    results.check_writable()
    pages = set[str]()
    left: list[str] = []
    for each in wanted:
        try:
            tracker, logged = _sync(results, each)
        except DrivenError as error:
            (left.append if name else options.say)(str(error))
        except ForeseenError as error:
            left.append(str(error))
        else:
            if not logged:
                left.append(f"{tracker.address}: {tracker.problem}")
                if tracker.check():
                    continue
                break  # nor would the others be
            for note in tracker.notes:
                print(note)
            if tracker.page not in pages:
                print(tracker.page)
                pages.add(tracker.page)
            print(f"{tracker.address} is up to date with {each.title}")
    if left:
        raise StoreError("\n".join(left))


def _sync(store: "Store", each: Driven) -> "tuple[Tracker, bool]":
    """Log one subject; return the tracker, and whether MLflow has all of it."""
    from sweeps.run.driver import driving
    from sweeps.track.subjects import runs_of
    from sweeps.track.tracker import Tracker

    with driving(store, each, "it logs its results itself"):
        runs, report = runs_of(store, each), store.root / each.path / "report"
        tracker = Tracker(store, runs)
        options.say(f"{each.title}: to {tracker.address}")  # a silent server takes a minute
        logged = tracker.finish()
        if logged and report.is_dir():
            logged = tracker.log_report(report.iterdir(), runs.report_says())
    return tracker, logged


def mlflow(
    store: options.StoreOption = "results",
    port: Annotated[int, typer.Option(min=1, max=65535, help=f"port on {HOST}")] = 5000,
) -> None:
    """Serve MLflow's pages for the runs of a store, and print the addresses of their charts."""
    from sweeps.store.store import open_store
    from sweeps.track.address import sqlite_uri
    from sweeps.track.database import experiment_ids
    from sweeps.track.faults import diagnose
    from sweeps.track.subjects import KINDS
    from sweeps.track.tracker import check_served

    results = open_store(store)
    file = results.root / "mlflow.db"
    _check_servable(results, port)
    try:
        ids = experiment_ids(file)  # at once for a broken file, which MLflow tries for two minutes
        check_served(file)
    except Exception as error:  # MLflow raises many kinds
        raise StoreError(f"{file}: {diagnose(error, sqlite_uri(file))}") from None
    print("the server takes some seconds to start; Ctrl-C ends it; its pages are:")
    for kind in KINDS:
        if kind.experiment in ids:
            server, found = f"http://{HOST}:{port}", ids[kind.experiment]
            charts = charts_page(server, found, role=kind.role, metric=kind.shown[0])
            print(f"{kind.experiment}: charts {charts}")
            print(f"{kind.experiment}: table {table_page(server, found)}", flush=True)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # would start seven idle processes
    os.environ["PYTHONWARNINGS"] = "ignore"  # its own code's
    os.execv(
        sys.executable,
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
            *("--workers", "1", "--uvicorn-opts", "--log-level warning"),
            *("--backend-store-uri", sqlite_uri(file), "--registry-store-uri", sqlite_uri(file)),
            *("--artifacts-destination", str(results.root / "mlartifacts")),
        ],
    )


def _check_servable(store: "Store", port: int) -> None:
    """Raise StoreError if the store has no runs of its own, or the port is taken."""
    from sweeps.track.address import is_own, tracking_uri, without_password

    file, uri = store.root / "mlflow.db", tracking_uri(store)
    if not file.is_file():
        elsewhere = "" if is_own(store, uri) else f"runs are logged to {without_password(uri)}; "
        raise StoreError(
            f"{file}: no such file; {elsewhere}`sweeps run` and `sweeps sync` create it"
            + (" without MLFLOW_TRACKING_URI" if elsewhere else "")
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise StoreError(
                f"{HOST}:{port}: {error.strerror}; end what listens there, or give another --port "
                "(`make mlflow`: MLFLOW_PORT)"
            ) from None
