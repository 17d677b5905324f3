"""What can be wrong with tracking, and the remedy for each kind of fault.

MLflow raises one class of exception for nearly all of them, so they are recognised by its messages.
No fault is fatal: results are in the store, and the next sync logs what is missing.
"""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from sweeps.store.errors import StoreError
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

HOST_AND_PORT = re.compile(r"(//)?([^@/\s]*@)?([\w.-]+|\[[\da-fA-F:]+\]):\d+(/.*)?")


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the remedy. Both continue `<address>: `, without a full stop."""

    what: str
    remedy: str
    is_temporary: bool = False
    """Whether it may go away by itself."""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


class TrackingError(ForeseenError):
    """A problem found before MLflow was contacted."""

    def __init__(self, what: str, remedy: str) -> None:
        self.problem = Problem(what, remedy)
        super().__init__(str(self.problem))


FAULTS = {
    # The database. These come first, as a server forwards the messages of its own database.
    r"database is locked|deadlock detected": Problem(
        "another process holds the database", "wait for it, or end it", is_temporary=True
    ),
    r"database or disk is full|No space left on device|Disk quota exceeded": Problem(
        "the disk is full", "free space on the disk of {file}"
    ),
    (
        r"No locks available|Function not implemented|Operation not supported|locking protocol"
    ): Problem(
        "its drive has no file locks, which keep two processes apart",
        "set " + VARIABLE + " to a database on another drive, or have this one mounted with flock",
    ),
    r"disk I/O error": Problem(
        "the drive does not support the reads and writes of a database",
        "move {file} to a local disk, and set " + VARIABLE + " to its new place",
    ),
    (
        r"readonly database|read-only transaction|Read-only file system: '([^']+)'"
        r"|Read-only file system"
    ): Problem(
        r"it cannot be written to: read-only \1",
        "make {file} and its folder writable, or set " + VARIABLE + " to another place",
    ),
    r"file is not a database|database disk image is malformed|file is encrypted": Problem(
        "the file is not an SQLite database, or a broken one",
        "move {file} away; `sweeps sync` makes a new one from the store",
    ),
    r"unable to open database file": Problem(
        "the database file cannot be opened",
        "give this user the right to read and write {file} and its folder",
    ),
    r"No module named '([\w.]+)'": Problem(
        r"the module \1 is missing here", f"install the package that has it for {sys.executable}"
    ),
    r"password authentication failed|Access denied for user": Problem(
        "the database refuses the user or the password", f"correct them in {VARIABLE}"
    ),
    r'database "([^"]+)" does not exist|Unknown database \'([^\']+)\'': Problem(
        r"the server has no database \1\2", f"create it, or correct {VARIABLE}"
    ),
    # What a server answers
    r"Invalid Host header": Problem(
        "the server refuses this host name (403)",
        "start it with --allowed-hosts {host}, or use a name and port that it knows",
    ),
    r"error code 401|UNAUTHENTICATED|CUSTOMER_UNAUTHORIZED": Problem(
        "the server refuses this user or password (401)",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    r"error code 403|PERMISSION_DENIED": Problem(
        "the server does not let this user write (403)",
        "ask its administrator for the right, or set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD to a user who has it",
    ),
    r"(?:too many |error code )(429)": Problem(
        r"the server refuses so many requests (\1)", "wait a little", is_temporary=True
    ),
    (
        r"(?:too many |error code )(5\d\d)|(?:TEMPORARILY_UNAVAILABLE|INTERNAL_ERROR): "
        r"(?!Response:)(.{1,300})"
    ): Problem(
        r"the server has an error (\1\2)",
        "read its log; restart it if it does not recover",
        is_temporary=True,
    ),
    r"error code 404|ENDPOINT_NOT_FOUND|No API found for|[\"']Not Found[\"']": Problem(
        "there is a server, but no recent MLflow at this path (404)",
        f"correct {VARIABLE}: it is the address at which the browser shows MLflow, up to `#`",
    ),
    r"HTTP request was sent to (?:an )?HTTPS": Problem(
        "the server speaks https", f"write https:// in {VARIABLE}"
    ),
    (
        r"error code (\d\d\d)|not in a valid JSON format|INTERNAL_ERROR: Response:|no MLflow:"
        r"|Exceeded \d+ redirects"
    ): Problem(
        r"something other than MLflow answers \1",
        f"correct {VARIABLE}, or log in where a proxy asks for it",
    ),
    # The way to a server
    r"WRONG_VERSION_NUMBER|record layer failure|UNKNOWN_PROTOCOL|HTTP_REQUEST\]": Problem(
        "the server does not speak https", f"write http:// in {VARIABLE}"
    ),
    r"(?:invalid path: |TLS key file, invalid path: )([^\s)]+)": Problem(
        r"there is no certificate file \1",
        "correct MLFLOW_TRACKING_SERVER_CERT_PATH, REQUESTS_CA_BUNDLE or "
        "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    ),
    r"SSLError.*?(certificate verify failed[^'\"()]*)|SSLError|SSL: (\w+)": Problem(
        r"no trusted https connection: \1\2",
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate file of its authority",
    ),
    r"ProxyError|Unable to connect to proxy": Problem(
        "the proxy does not let this through",
        "correct http_proxy and https_proxy, or name {host} in no_proxy",
    ),
    (
        r"NameResolutionError|Failed to resolve|Name or service not known|could not translate "
        r"host name|getaddrinfo failed|label too long"
    ): Problem("unknown host name", f"correct {VARIABLE}, or the network's DNS"),
    r"timed out|timeout": Problem(
        "no answer in time",
        f"start the server, open its tunnel, or set {VARIABLE} to one that answers",
        is_temporary=True,
    ),
    (
        r"Connection refused|Connection aborted|Connection reset|RemoteDisconnected"
        r"|No route to host|Network is unreachable|NewConnectionError|Max retries exceeded"
        r"|could not connect|connection to server|ConnectionError"
        r"|server closed the connection|terminating connection|Lost connection|has gone away"
    ): Problem(
        "the server does not answer",
        f"start the server, open its tunnel, or set {VARIABLE} to one that answers",
        is_temporary=True,
    ),
    # What is in MLflow
    r"maintenance mode": Problem(
        "MLflow keeps no runs in plain folders any more", f"set {VARIABLE} to a database"
    ),
    r"exceed[^.]*length|length limit|too long for type|Data too long": Problem(
        "the server's MLflow does not accept values of this length", "upgrade the server's MLflow"
    ),
    r"Run .*not found|must be in.{1,12}active|No Experiment with id": Problem(
        "a run or the experiment has been deleted",
        "run the same command again, which restores it",
        is_temporary=True,
    ),
    r"Permission denied: '([^']+)'": Problem(
        r"this user may not write to \1",
        "give this user the right to write there; a server on another machine must be started "
        "with --artifacts-destination",
    ),
}
"""Regular expression that finds a message of MLflow's, case ignored -> the problem. The first one
that matches counts. `what` may use its groups as `\\1`; `remedy` may use {file} (of a SQLite
address, else the address) and {host}."""

SCHEMA = re.compile(
    r"found version (\w+), but expected|Can't locate revision identified by '(\w+)'"
)


def diagnose(error: BaseException, uri: str) -> Problem:
    """Return what is wrong, from an exception that MLflow, SQLite or a driver raised."""
    if isinstance(error, TrackingError):
        return error.problem
    if isinstance(error, StoreError):
        error = error.__cause__ or error  # without the store's own remedy
    words = without_password(" ".join(f"{type(error).__name__}: {error}".split()))
    if schema := SCHEMA.search(words):
        return _other_schema(schema[1] or schema[2], uri)
    for signs, problem in FAULTS.items():
        if found := re.search(signs, words, re.IGNORECASE):
            remedy = problem.remedy.format(
                file=sqlite_file(uri) or without_password(uri),
                host=urlsplit(uri).netloc.rpartition("@")[2],
            )
            return Problem(found.expand(problem.what).rstrip(" :"), remedy, problem.is_temporary)
    if len(words) > MAX_WORDS:  # the end often matters most
        words = f"{words[: MAX_WORDS * 2 // 3]} ... {words[-MAX_WORDS // 3 :]}"
    return Problem(words, "correct what this says")


def check_address(uri: str) -> None:
    """Raise TrackingError for an address at which MLflow cannot keep runs, without connecting."""
    scheme = scheme_of(uri) or ""
    name, plugins = scheme.partition("+")[0], entry_points(group="mlflow.tracking_store").names
    if scheme in ("http", "https"):
        _check_server(uri)
    elif name == "sqlite":
        _check_sqlite(uri)
    elif "databricks" in (uri, scheme) or name in DATABASES or scheme in plugins:
        return
    elif HOST_AND_PORT.fullmatch(uri):
        server = without_password(uri).lstrip("/")
        raise TrackingError(f"{VARIABLE} has no scheme", f"write http://{server}")
    elif not scheme:
        _raise_no_scheme(uri)
    elif scheme != "file":
        known = ", ".join(f"{known}://" for known in ("http", *DATABASES))
        raise TrackingError(
            f"{VARIABLE} has a scheme that MLflow does not know: {scheme}",
            "write postgresql:// instead" if name == "postgres" else f"write one of {known}",
        )
    elif os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        folder = Path(urlsplit(uri).path or ".").absolute()
        raise TrackingError(
            "MLflow keeps no runs in plain folders any more", f"write {_database_in(folder)}"
        )


def _raise_no_scheme(text: str) -> NoReturn:
    """Raise TrackingError for a host name or a path, with the addresses it may mean."""
    path = Path(text).expanduser().absolute()
    is_file = path.is_file() or path.suffix in (".db", ".sqlite", ".sqlite3")
    ways = [sqlite_uri(path) if is_file else _database_in(path)]
    host = text.partition("/")[0]
    if host[:1] not in ("", ".", "~") and not is_file and not path.exists():
        ways = [f"http://{without_password(text)} for a server", f"{ways[0]} for a database"]
    raise TrackingError(f"{VARIABLE} has no scheme", f"write {', '.join(ways)}")


def _database_in(folder: Path) -> str:
    return sqlite_uri(folder / "mlflow.db")


def _check_server(uri: str) -> None:
    form = f"write it as {(scheme_of(uri) or 'http')}://HOST:PORT"
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        raise TrackingError(f"{VARIABLE} has no valid host or port", form) from None
    if not host:
        raise TrackingError(f"{VARIABLE} names no host", form)


def _check_sqlite(uri: str) -> None:
    _, slashes, path = uri.partition(":///")
    file = uri.partition(":")[2]
    file = file.lstrip("/") if file.startswith("//") else file
    if not slashes and file:
        right = sqlite_uri(Path(file).absolute())
        raise TrackingError(f"{VARIABLE} needs three slashes before the path", f"write {right}")
    is_quoted = unquote(path) != path or "/" in path.partition("?")[2]
    if slashes and scheme_of(uri) == "sqlite" and is_quoted:
        raise TrackingError(
            "MLflow opens another file if a path has `?`, or `%` as in `%20`",
            f"write {sqlite_uri(Path(path))} in {VARIABLE}",
        )
    if sqlite_file(uri) is None:
        raise TrackingError(
            "a database in memory keeps nothing", f"write {_database_in(Path.cwd())}"
        )


def _other_schema(revision: str, uri: str) -> Problem:
    """Return the problem with a database that another version of MLflow made."""
    if revision in _known_revisions():
        address = shlex.quote(uri) if without_password(uri) == uri else f'"${VARIABLE}"'
        upgrade = f"{shlex.quote(sys.executable)} -m mlflow db upgrade {address}"
        return Problem(
            f"the database was made by an older MLflow (schema {revision})",
            f"copy {sqlite_file(uri) or 'the database'} to be safe, then run `{upgrade}`",
        )
    return Problem(
        f"the database was made by a newer MLflow than {version('mlflow')} (schema {revision})",
        f"upgrade MLflow here, or set {VARIABLE} to another database",
    )


def _known_revisions() -> set[str]:
    """Return the revisions that this MLflow can upgrade from."""
    package = find_spec("mlflow")  # does not import it
    roots = (package and package.submodule_search_locations) or ()
    return {
        script.name.partition("_")[0]
        for root in roots
        for script in Path(root, "store/db_migrations/versions").glob("*.py")
    }
