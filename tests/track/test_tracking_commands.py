"""The commands sync and mlflow, on stores with made-up results."""

import os
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import Result
from commands import sweeps
from made_up.finished import fill, finished_sweep
from made_up.planned import SEARCH, planned_headline, search_trial
from mlflow_file import mlflow_runs

from sweeps.plan.chains.headline import save_headline
from sweeps.plan.search import History, save_search
from sweeps.plan.sweep import load_sweep
from sweeps.report.tables.document import write_report
from sweeps.store.store import Store, write_json

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.fixture(scope="module")
def synced(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Result]:
    """A store with a finished sweep, a search and a headline, no files but results; its sync."""
    store = Store(tmp_path_factory.mktemp("store"))
    shutil.copy(mlflow_database, store.root)
    fill(store, finished_sweep(("VI",), 1), lambda trial: 0.5)
    save_search(store, SEARCH)
    History(SEARCH, store).save(search_trial(0, "finished", 30.0))
    save_headline(store, planned_headline("masks"))
    write_report(load_sweep(store, None), store)
    return store, sweeps("sync", "--store", store.root)


@pytest.fixture
def store(synced: tuple[Store, Result], tmp_path: Path) -> Store:
    """A copy, to be changed."""
    shutil.copytree(synced[0].root, tmp_path / "copy")
    return Store(tmp_path / "copy")


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_one_sync_logs_all_of_a_store_with_its_report(synced: tuple[Store, Result]) -> None:
    store, done = synced
    assert done.exit_code == 0, done.output
    for kind in ("sweep VI-tiny", "search tiny-made-up", "headline III-yes-yes-tiny"):
        assert f"is up to date with {kind}" in done.output
    assert "cam_gallery.png, which is gone" in done.output
    assert "is logged without its network" in done.output
    pages = [line.partition("/#/experiments/")[2] for line in done.output.splitlines()]
    assert [page[:7] for page in pages if page] == ["1/runs?", "2/runs?", "3/runs?"]
    runs = mlflow_runs(store.root / "mlflow.db")
    (sweep,) = [run for run in runs if run.tags.get("wsss.role") == "sweep"]
    assert "verdicts/not_resolvable" in sweep.metrics  # which the report comes to
    (private := store.root / "mine.txt").touch()
    assert sweeps("report", "--store", store.root, "--out", store.root).exit_code == 0
    attached = {path.name for path in Path(sweep.artifact_uri[7:], "report").iterdir()}
    assert "report.html" in attached
    assert private.name not in attached, "only the report's own files are"


def test_what_is_damaged_is_named_and_all_else_logged(store: Store) -> None:
    (broken,) = store.root.glob("searches/*/search.json")
    write_json(broken, {})
    (result := next(store.root.glob("runs/*/done.json"))).write_text("no")
    done = sweeps("sync", "--store", store.root)
    assert done.exit_code == 2
    assert "is up to date with headline" in done.stdout
    assert f"error: {broken}: not what this version of `sweeps search` writes" in done.stderr
    assert f"{result}: not JSON" in done.stderr
    assert "RUNNING" not in {run.status for run in mlflow_runs(store.root / "mlflow.db")}
    done = sweeps("sync", "--store", store.root, "--sweep", "unknown")
    assert done.exit_code == 2
    assert "no sweep, search or headline unknown; there are: VI-tiny" in done.stderr


def test_the_pages_of_a_store_are_served_and_named(
    synced: tuple[Store, Result], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, started = synced[0], list[list[str]]()
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    with socket.create_server(("127.0.0.1", port)):
        done = sweeps("mlflow", "--store", store.root, "--port", port)
        assert done.exit_code == 2
        assert "give another --port" in done.stderr
    done = sweeps("mlflow", "--store", store.root, "--port", port)
    assert done.exit_code == 0, done.output
    first, *links = done.stdout.splitlines()
    assert first == "the server takes some seconds to start; Ctrl-C ends it; its pages are:"
    assert [unquote(line) for line in links] == [
        f"{name}: {kind} http://127.0.0.1:{port}/#/experiments/{number}/runs"
        f"?workflowType=machine_learning&{query}"
        for number, name, role, metric in (
            (1, "wsss", "trial", "miou/fixed"),
            (2, "wsss-search", "trial", "objective/search_half"),
            (3, "wsss-segmentation", "segmentation", "miou/val"),
        )
        for kind, query in (
            (
                "charts",
                f"searchFilter=tags.`wsss.role` = '{role}'&orderByKey=metrics.`{metric}`"
                "&orderByAsc=false&compareRunsMode=CHART",
            ),
            ("table", "viewStateShareKey=table"),
        )
    ]
    (words,) = started
    assert {f"sqlite:///{store.root}/mlflow.db", "--log-level warning"} <= {*words}


def test_a_file_that_mlflow_cannot_serve_is_refused_with_its_remedy(
    store: Store, port: int
) -> None:
    file = store.root / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0123abcd'")
    done = sweeps("mlflow", "--store", store.root, "--port", port)
    assert done.exit_code == 2
    assert "another version of MLflow (schema 0123abcd); if by an older one, copy" in done.stderr
    file.write_bytes(b"")
    done = sweeps("mlflow", "--store", store.root, "--port", port)
    assert f"move {file} away" in done.stderr


def test_a_store_without_runs_has_no_pages_and_says_how_to_get_them(tmp_path: Path) -> None:
    done = sweeps("mlflow", "--store", tmp_path, MLFLOW_TRACKING_URI="http://me:pw@host")
    assert done.exit_code == 2
    assert "no such file; runs are logged to http://host" in done.stderr


def test_a_sync_that_can_never_work_is_refused_with_its_remedy(tmp_path: Path) -> None:
    fill(Store(tmp_path), finished_sweep(("VI",), 1), lambda trial: 0.5)
    done = sweeps("sync", "--store", tmp_path, MLFLOW_TRACKING_URI="localhost:5000")
    assert done.exit_code == 2
    assert "up to date" not in done.stdout
    _, said = done.stderr.splitlines()  # the first: where it logs to
    assert said.startswith("error: localhost:5000: an address without a scheme that MLflow knows; ")
    assert "set MLFLOW_TRACKING_URI to http://HOST:PORT" in said
