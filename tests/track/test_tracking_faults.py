"""Each fault of tracking says what is wrong and has its own remedy."""

import errno
import os
import re
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from sqlalchemy.exc import OperationalError

from sweeps.store.store import Store
from sweeps.track.address import sqlite_uri, tracking_uri, without_password
from sweeps.track.database import check_file, check_server
from sweeps.track.faults import TrackingError, check_address, diagnose
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.tracker import Tracker, open_client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("localhost:5000", "without a scheme"),
        ("./runs", "without a scheme"),
        ("htp://host:5000", "without a scheme that MLflow knows"),
        ("postgres://me@host/db", r"postgresql\+psycopg2://"),
        ("http:5000", "no valid host"),
        ("http://host:port", "no valid host or port"),
        ("sqlite:runs.db", "no file"),
        ("sqlite:///:memory:", "no file"),
        (
            "sqlite:////a?b/mlflow.db",
            r"another file .*; write sqlite\+pysqlite:////a%3Fb/mlflow.db",
        ),
        ("sqlite:////a%20b/mlflow.db", "another file"),
    ],
)
def test_an_address_that_cannot_be_one_says_so_with_a_remedy(uri: str, said: str) -> None:
    with pytest.raises(TrackingError, match=f"{said}.*MLFLOW_TRACKING_URI|; set.*{said}"):
        check_address(uri)


def test_a_folder_in_the_place_of_the_database_is_no_matter_of_rights(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(TrackingError, match=f"a folder .*; move {tmp_path}/mlflow.db away"):
        check_address(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:secret@host/mlflow",
        "sqlite:///mlflow.db",
        "sqlite:////a/b.db?timeout=3",
        "postgresql+psycopg2://me@/mlflow?host=/run",
        "databricks",
        "databricks://profile",
    ],
)
def test_an_address_that_mlflow_takes_is_taken(uri: str) -> None:
    check_address(uri)


def test_a_database_that_lets_nobody_in_is_asked_once(tmp_path: Path) -> None:
    # MLflow asks ten times, for two minutes.
    uri = f"sqlite:///{tmp_path}/none/mlflow.db"
    with pytest.raises(OperationalError) as caught:
        check_server(uri)
    assert "cannot be opened" in diagnose(caught.value, uri)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@host:1", "http://host:1"),
        ("http://me:se@cret@host:1/x", "http://host:1/x"),
        ("postgresql+psycopg2://me:se/cret@/db?host=/run", "postgresql+psycopg2:///db?host=/run"),
        ("http://host:1/team@lab", "http://host:1/team@lab"),
        ("sqlite:////data@lab/mlflow.db", "sqlite:////data@lab/mlflow.db"),
    ],
)
def test_a_password_alone_is_not_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown
    assert f"at {shown} failed; " in diagnose(ValueError(f"at {uri} failed"), uri)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("(sqlite3.OperationalError) database is locked", "holds the database; wait"),
        ("(sqlite3.OperationalError) database or disk is full", "disk is full; .*/st/mlflow.db"),
        ("[Errno 28] No space left on device", "disk is full; free space"),
        ("attempt to write a readonly database", "read-only; make /st/mlflow.db and"),
        ("[Errno 30] Read-only file system: '/st/a'", "read-only: '/st/a'; make"),
        ("(sqlite3.OperationalError) disk I/O error", "does not support .*; .* local disk"),
        ("malformed database schema (metrics)", r"broken one; move /st/mlflow\.db away"),
        ("table experiments already exists", r"broken one; move /st/mlflow\.db away"),
        ("unable to open database file", "cannot be opened; .* right to read and write"),
        ("[Errno 13] Permission denied: '/mnt/x'", "write to /mnt/x; .*--artifacts-destination"),
        ("SSLError('certificate verify failed: self-signed (_ssl.c:1)'", "self-signed; .*_CERT_"),
        ("Caused by ProxyError('Unable to connect')", "proxy .*; .*no_proxy"),
        ("Failed to resolve 'hst' ([Errno -2] ...)", "unknown host name; .*DNS"),
        ("failed with timeout exception: Read timed out.", "does not answer; start the server"),
        ("Exceeded 30 redirects.", "other than MLflow answers; .*log in where a proxy"),
        ("server closed the connection", "the server does not answer; start the"),
        ("403. Response body: 'Invalid Host header - possible DNS'", "; .*--allowed-hosts"),
        ("No module named 'psycopg'", r"has to be named; write postgresql\+psycopg2://"),
        ("No module named 'MySQLdb'", "No module named 'MySQLdb'; correct what this says"),
    ],
)
def test_each_fault_has_its_own_remedy(words: str, said: str) -> None:
    assert re.search(said, diagnose(RuntimeError(words), "sqlite:////st/mlflow.db"))


def test_the_end_of_what_mlflow_says_is_kept() -> None:
    said = diagnose(RuntimeError("begins " + "x" * 5000 + " matters"), "sqlite:////st/mlflow.db")
    assert said.startswith("RuntimeError: begins")
    assert said.endswith(" matters; correct what this says")


class Answers(BaseHTTPRequestHandler):
    """Answers every request as its first folder says: /404-html/..."""

    def do_GET(self) -> None:
        status, _, kind = self.path.split("/")[1].partition("-")
        body = {"html": b"<html>Log in</html>", "json": b'{"detail": "no"}'}.get(kind, b"")
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815  # the name is the library's

    def log_message(self, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that is no MLflow."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def problem_at(uri: str) -> str:
    """What is wrong with an address, as a tracker finds it before anything runs."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MLflow raises many kinds
        open_client(uri).get_experiment_by_name("wsss")
    return diagnose(caught.value, uri)


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg2"])
def test_a_server_that_never_answers_is_given_up_before_mlflow_tries_it(scheme: str) -> None:
    """MLflow itself would try for a minute, and again; a database's driver waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises((requests.Timeout, TimeoutError)) as caught:
            open_client(uri, answer_within=0.3)
    assert diagnose(caught.value, uri).startswith("the server does not answer; ")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("401-", "refuses this user .*; .*MLFLOW_TRACKING_USERNAME"),
        ("403-html", "does not let this user write .*; .*administrator"),
        ("404-html", "no recent MLflow at this path .*browser"),
        ("404-json", "something other than MLflow"),
        ("200-html", "something other than MLflow .*proxy"),
        ("405-", "something other than MLflow answers 405; correct"),
        ("500-", r"has an error \(500\); .*log"),
        ("429-", r"has an error \(429\); wait"),
    ],
)
def test_a_server_that_answers_otherwise(port: int, path: str, said: str) -> None:
    assert re.search(said, problem_at(f"http://127.0.0.1:{port}/{path}"))


def test_a_server_that_knows_anything_is_no_mlflow(
    port: int, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}/200-")
    tracker = Tracker(store, SweepRuns.__new__(SweepRuns))
    assert not tracker.log_report([])
    assert "something other than MLflow" in tracker.problem


def test_a_server_that_is_away_or_speaks_no_https(port: int) -> None:
    assert "the server does not answer" in problem_at("http://127.0.0.1:9")
    assert "write http://" in problem_at(f"https://127.0.0.1:{port}")
    assert "unknown host name" in problem_at("http://nowhere.invalid")


def test_plain_folders_are_refused_by_mlflow_itself(tmp_path: Path) -> None:
    said = problem_at(f"file://{tmp_path}")
    assert said.startswith("MLflow keeps no runs in plain folders any more; set MLFLOW_TRACKING_U")


@pytest.fixture
def file(mlflow_database: Path, tmp_path: Path) -> Path:
    """The database of a store at tmp_path."""
    return Path(shutil.copy(mlflow_database, tmp_path / "mlflow.db"))


@pytest.mark.parametrize("revision", ["0584bdc529eb", "ffffffffffff"])  # an old one, a newer one
def test_a_database_of_another_mlflow(file: Path, revision: str) -> None:
    with closing(sqlite3.connect(file)) as changed, changed:
        changed.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    said = problem_at(sqlite_uri(file))
    assert f"another version of MLflow (schema {revision}); " in said
    assert f"-m mlflow db upgrade sqlite:///{file}`; else upgrade MLflow here" in said


def test_a_database_that_is_none_is_to_be_moved_away(file: Path) -> None:
    file.write_bytes(b"not a database " * 100)
    assert f"move {file} away; `sweeps sync`" in problem_at(sqlite_uri(file))


def test_a_database_on_a_drive_without_locks_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    said = problem_at(sqlite_uri(tmp_path / "mlflow.db"))
    assert "this drive has no locks" in said
    assert "another one, or have it mounted with flock" in said
    assert not (tmp_path / "mlflow.db").exists()


def test_a_database_that_another_process_holds(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            check_file(file, wait=0.1)
    assert "another process holds the database" in diagnose(caught.value, sqlite_uri(file))


def test_a_folder_with_odd_characters_can_hold_a_database(
    mlflow_database: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a #1 50% @b"
    folder.mkdir()
    shutil.copy(mlflow_database, folder)
    uri = tracking_uri(Store(folder))
    assert without_password(uri) == uri
    run = open_client(uri).create_run("0")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("SELECT run_uuid FROM runs").fetchall() == [(run.info.run_id,)]
