"""A client of MLflow whose database, if it is a file of ours, is whole or not there.

MLflow makes the tables of a new SQLite file in many steps, over seconds. A process killed meanwhile
leaves a file which MLflow refuses for ever, so it is made under another name first.
"""

import os
from pathlib import Path

from filelock import FileLock
from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"


def open_client(uri: str) -> MlflowClient:
    """Return a client; a SQLite file that does not exist is made first, whole, by one process."""
    if uri.startswith(SQLITE):
        _make_whole(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(uri)


def _make_whole(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        for old in path.parent.glob(f"{path.name}.partial*"):
            old.unlink()
        partial = path.with_name(f"{path.name}.partial{os.getpid()}")
        MlflowClient(f"{SQLITE}{partial}").search_experiments(max_results=1)  # makes all tables
        partial.replace(path)
