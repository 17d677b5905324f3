"""What all trackers share: the client, an experiment, how a run is found, an error in one line.

MLflow makes the tables of a new SQLite file in many steps, over seconds. A process killed meanwhile
leaves a file which MLflow refuses for ever, so it is made under another name first.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from sweeps.store.store import Store

SQLITE = "sqlite:///"

# A server that is away should cost seconds, not minutes; the store replays what it missed.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
for _talkative in ("mlflow", "alembic"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)


def tracking_uri(store: Store) -> str:
    """Return MLFLOW_TRACKING_URI, or a SQLite file in the store."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{store.root / 'mlflow.db'}"


def open_client(uri: str) -> MlflowClient:
    """Return a client; a SQLite file that does not exist is made first, whole, by one process."""
    if uri.startswith(SQLITE):
        _make_whole(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(uri)


def experiment_of(
    client: MlflowClient, name: str, store: Store, *, tags: dict[str, str] | None = None
) -> str:
    """Return an experiment's id; it is made if there is none, with artifacts in a local store."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = tracking_uri(store).startswith("sqlite:")
    location = store.artifact_location if local else None
    return str(client.create_experiment(name, artifact_location=location, tags=tags))


def find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Run | None:
    """Return a run of the experiment that bears all the tags, None if there is none."""
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment_id], wanted, max_results=1)
    return found[0] if found else None


def reason(error: Exception) -> str:
    """Return an error as one line of 200 characters at most."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


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
