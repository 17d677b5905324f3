"""Checks of MLflow's server, and checks and repairs of its database, without MLflow."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests

from wsss.basics.waiting import within

WAIT_SECONDS = 20.0
"""How long to wait for another process that holds the file, like MLflow."""

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
"""(table, column) where MLflow keeps absolute addresses of artifacts."""


def check_file(path: Path, wait: float = WAIT_SECONDS) -> None:
    """Raise sqlite3.Error if a file cannot be written to as a database.

    MLflow would try for two minutes to open a broken one. wait: seconds for another process.
    """
    with _locked(path, wait):
        pass


def check_server(uri: str) -> None:
    """Raise the driver's error if this process cannot connect to a database.

    MLflow would try for two minutes without a word.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def require_answer(uri: str, limit: float) -> None:
    """Raise an error of a timeout if nothing answers at the address of a server.

    MLflow itself would try for a minute. Any other error is left to MLflow, which has settings for
    certificates and passwords.
    """

    def ask() -> None:
        url = f"{uri.rstrip('/')}/health"
        requests.get(url, timeout=limit, stream=True, allow_redirects=False).close()

    try:
        within(limit, ask)
    except requests.Timeout:
        raise
    except requests.RequestException:
        pass


def move_artifacts(path: Path, before: str, now: str) -> None:
    """Change the start of every address from the URI `before` to `now`. Raises sqlite3.Error."""
    with _locked(path) as database:
        for table, column in PLACES:
            database.execute(
                f"UPDATE {table} SET {column} = :now || substr({column}, length(:before) + 1) "
                f"WHERE {column} = :before OR substr({column}, 1, length(:before) + 1) "
                "= :before || '/'",
                {"before": before, "now": now},
            )


def local_folder(uri: str) -> Path | None:
    """Return the folder of a `file:` URI; None for any other."""
    return Path(url2pathname(urlsplit(uri).path)) if uri.startswith("file:") else None


def experiment_ids(path: Path) -> dict[str, str]:
    """Return name -> id of the experiments that are not deleted. Raises sqlite3.Error."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=WAIT_SECONDS)) as database:
        rows = database.execute(
            "SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'"
        )
        return {name: str(experiment_id) for name, experiment_id in rows}


@contextmanager
def _locked(path: Path, wait: float = WAIT_SECONDS) -> Iterator[sqlite3.Connection]:
    """Yield a connection with the write lock, in one transaction."""
    address = f"{path.absolute().as_uri()}?mode=rw"
    with closing(
        sqlite3.connect(address, uri=True, timeout=wait, isolation_level=None)
    ) as database:
        database.execute("BEGIN IMMEDIATE")
        yield database
        database.execute("COMMIT")
