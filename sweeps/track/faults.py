"""What can be wrong with tracking, and the remedy for each kind of fault.

MLflow raises one class of exception for nearly all of them, so they are recognised by its messages.
No fault is fatal: results are in the store, and the next sync logs what is missing.
"""

import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sweeps.track.address import (
    DATABASES,
    VARIABLE,
    scheme_of,
    sqlite_file,
    sqlite_uri,
    without_password,
)
from wsss.basics.errors import ForeseenError

MAX_WORDS = 1000
"""Characters shown of MLflow's message about a fault that is not in the table."""

FORMS = (
    f"set {VARIABLE} to http://HOST:PORT of a server, to sqlite:////FOLDER/mlflow.db for a file, "
    "or to postgresql+psycopg2://... for another database"
)


class TrackingError(ForeseenError):
    """An address at which MLflow cannot keep runs, found before it was contacted."""


FAULTS = {
    r"could not be acquired|held by .* last sign of life": (
        "another process is logging runs of this store; wait for it, or end it"
    ),
    # The database. These come before the server's, which forwards the messages of its own one.
    r"database is locked|deadlock detected": (
        "another process holds the database; wait for it, or end it"
    ),
    r"database or disk is full|No space left on device|Disk quota exceeded": (
        "the disk is full; free space on the disk of {file}"
    ),
    r"disk I/O error|locking protocol": (
        "the drive does not support the locks, reads and writes of a database; move {file} to a "
        f"local disk, and set {VARIABLE} to its new place"
    ),
    r"readonly database|read-only transaction|Read-only file system(: '[^']+')?": (
        rf"it cannot be written to: read-only\1; make {{file}} and its folder writable, or set "
        f"{VARIABLE} to another place"
    ),
    (
        r"file is not a database|malformed database|disk image is malformed|file is encrypted"
        r"|no such table|table \w+ already exists"
    ): (
        "the file is not an SQLite database, or a broken one; move {file} away; `sweeps sync` "
        "makes a new one from the store"
    ),
    r"unable to open database file": (
        "the database file cannot be opened; give this user the right to read and write {file} and "
        "its folder"
    ),
    r"found version (\w+), but expected|Can't locate revision identified by '(\w+)'": (
        r"the database was made by another version of MLflow (schema \1\2); if by an older one, "
        f"copy {{file}} to be safe, then run `{shlex.quote(sys.executable)} -m mlflow db upgrade "
        f"{{address}}`; else upgrade MLflow here, or set {VARIABLE} to another database"
    ),
    r"No module named 'psycopg'": (
        f"the driver that is installed has to be named; write postgresql+psycopg2:// in {VARIABLE}"
    ),
    r"maintenance mode": f"MLflow keeps no runs in plain folders any more; {FORMS}",
    # What a server answers
    r"Invalid Host header": (
        "the server refuses this host name (403); start it with --allowed-hosts {host}, or use a "
        "name and port that it knows"
    ),
    r"error code 401|UNAUTHENTICATED|CUSTOMER_UNAUTHORIZED": (
        "the server refuses this user or password (401); set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    ),
    r"error code 403|PERMISSION_DENIED": (
        "the server does not let this user write (403); ask its administrator for the right, or "
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who has it"
    ),
    (
        r"(?:too many |error code )(429|5\d\d)|(?:TEMPORARILY_UNAVAILABLE|INTERNAL_ERROR): "
        r"(?!Response:)(.{1,300})"
    ): r"the server has an error (\1\2); wait a little, then read its log and restart it",
    r"error code 404|ENDPOINT_NOT_FOUND|No API found for|[\"']Not Found[\"']": (
        "there is a server, but no recent MLflow at this path (404); correct "
        f"{VARIABLE}: it is the address at which the browser shows MLflow, up to `#`"
    ),
    (
        r"error code (\d\d\d)|not in a valid JSON format|INTERNAL_ERROR: Response:|no MLflow:"
        r"|Exceeded \d+ redirects"
    ): (
        rf"something other than MLflow answers \1; correct {VARIABLE}, or log in where a proxy "
        "asks for it"
    ),
    # The way to a server
    r"SSLError.*?(certificate verify failed[^'\"()]*)|SSLError|SSL: (\w+)": (
        rf"no trusted https connection: \1\2; write http:// in {VARIABLE} if the server speaks no "
        "https, or set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate file of its authority"
    ),
    r"ProxyError|Unable to connect to proxy": (
        "the proxy does not let this through; correct http_proxy and https_proxy, or name {host} "
        "in no_proxy"
    ),
    (
        r"NameResolutionError|Failed to resolve|Name or service not known|could not translate "
        r"host name|getaddrinfo failed|label too long"
    ): f"unknown host name; correct {VARIABLE}, or the network's DNS",
    (
        r"timed out|timeout|Connection refused|Connection aborted|Connection reset"
        r"|RemoteDisconnected|No route to host|Network is unreachable|NewConnectionError"
        r"|Max retries exceeded|could not connect|connection to server|ConnectionError"
        r"|server closed the connection|terminating connection|Lost connection|has gone away"
    ): (
        "the server does not answer; start the server, open its tunnel, or set "
        f"{VARIABLE} to one that answers"
    ),
    # What is in MLflow
    r"Run .*not found|must be in.{1,12}active|No Experiment with id": (
        "a run or the experiment has been deleted; run the same command again, which restores it"
    ),
    r"Permission denied: '([^']+)'": (
        r"this user may not write to \1; give this user the right to write there; a server on "
        "another machine must be started with --artifacts-destination"
    ),
}
"""Regular expression that finds a message of MLflow's, case ignored -> what is wrong and the
remedy, behind the first semicolon. The first one that matches counts. What is wrong may use its
groups as `\\1`, the remedy {file} (of a SQLite address, else the address), {address} and {host}."""


def diagnose(error: BaseException, uri: str) -> str:
    """Return what is wrong and the remedy, from an exception of MLflow, SQLite or a driver.

    It continues `<address>: `, without a full stop.
    """
    if isinstance(error, ForeseenError):
        return str(error)
    words = without_password(" ".join(f"{type(error).__name__}: {error}".split()))
    for signs, text in FAULTS.items():
        if found := re.search(signs, words, re.IGNORECASE):
            (what, _, remedy), address = text.partition("; "), without_password(uri)
            remedy = remedy.format(
                file=sqlite_file(uri) or address,
                address=shlex.quote(address),
                host=urlsplit(uri).netloc.rpartition("@")[2],
            )
            return f"{found.expand(what).rstrip(' :')}; {remedy}"
    if len(words) > MAX_WORDS:  # the end often matters most
        words = f"{words[: MAX_WORDS * 2 // 3]} ... {words[-MAX_WORDS // 3 :]}"
    return f"{words}; correct what this says"


def check_address(uri: str) -> None:
    """Raise TrackingError for an address at which MLflow cannot keep runs, without connecting."""
    (scheme, driver), plugins = scheme_of(uri), entry_points(group="mlflow.tracking_store").names
    if scheme in ("http", "https"):
        if not _has_host(uri):
            raise TrackingError(f"no valid host or port; {FORMS}")
    elif scheme == "sqlite":
        file = sqlite_file(uri)
        if file is None:
            raise TrackingError(f"no file of a database; {FORMS}")
        if file.is_dir():
            raise TrackingError(f"a folder in the place of a database; move {file} away")
        path = uri.partition(":///")[2]
        if not driver and (unquote(path) != path or "/" in path.partition("?")[2]):
            raise TrackingError(
                "MLflow opens another file if a path has `?`, or `%` as in `%20`; write "
                f"{sqlite_uri(Path(path))} in {VARIABLE}"
            )
    elif not {uri, scheme, scheme + driver} & {*DATABASES, *plugins, "file", "databricks"}:
        raise TrackingError(f"an address without a scheme that MLflow knows; {FORMS}")


def _has_host(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and parts.port != 0  # reading the port checks it
    except ValueError:
        return False
