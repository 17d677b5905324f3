"""Where MLflow keeps runs, by its address, without importing MLflow or asking a server."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from sweeps.store.store import Store

VARIABLE = "MLFLOW_TRACKING_URI"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""Schemes of databases that this process writes to directly, without a server."""


def tracking_uri(store: Store) -> str:
    """Return MLFLOW_TRACKING_URI; if it is not set, the address of the store's SQLite file."""
    return os.environ.get(VARIABLE, "").strip() or sqlite_uri(_own_file(store))


def sqlite_uri(path: Path) -> str:
    """Return the address of a SQLite file.

    `?` and `%` are quoted, and the driver is named: without it MLflow would create a folder of the
    quoted name.
    """
    quoted = str(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{quoted}" if quoted == str(path) else f"sqlite+pysqlite:///{quoted}"


def without_password(uri: str) -> str:
    """Return an address, or a text with addresses in it, without user names and passwords.

    A password may hold `@` and `/`, though not a number before the first `/`, which is a port.
    """
    return re.sub(r"(://|^)([^/\s]*@|[^/@\s:]*:(?!\d*(/|$))\S*@)", r"\1", uri)


def scheme_of(uri: str) -> tuple[str, str]:
    """Return the scheme of an address and the driver behind its +, in lower case; "" without."""
    found = re.match(r"([a-z][a-z0-9.-]*)(\+[a-z0-9.-]+)?:", uri.lower())
    return (found[1], found[2] or "") if found else ("", "")


def is_database(uri: str) -> bool:
    """Whether an address is that of a database; then this process names the artifact folder."""
    return scheme_of(uri)[0] in DATABASES


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite address; None for any other address or for memory."""
    if scheme_of(uri)[0] != "sqlite":
        return None
    path = uri.partition(":///")[2].partition("?")[0]
    return None if path in ("", ":memory:") else Path(unquote(path))


def is_own(store: Store, uri: str) -> bool:
    """Whether an address is that of the SQLite file in the store."""
    file = sqlite_file(uri)
    return file is not None and file.resolve() == _own_file(store).resolve()


def _own_file(store: Store) -> Path:
    return store.root / "mlflow.db"
