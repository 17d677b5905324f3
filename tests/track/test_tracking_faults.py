"""Each fault of tracking says what is wrong and has its own remedy."""

import errno
import os
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
from sweeps.track.faults import Problem, TrackingError, check_address, diagnose
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.tracker import Tracker, open_client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own


def wrong(uri: str) -> Problem | None:
    """What is wrong with an address, if anything is."""
    try:
        check_address(uri)
    except TrackingError as error:
        return error.problem
    return None


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("localhost:5000", "write http://localhost:5000"),
        ("//[::1]:5000/mlflow", "write http://[::1]:5000/mlflow"),
        ("me:secret@host:5000", "write http://host:5000"),
        ("./runs", "write sqlite:///{here}/runs/mlflow.db"),
        ("runs/mlflow.db", "write sqlite:///{here}/runs/mlflow.db"),
        ("file:./runs", "write sqlite:///{here}/runs/mlflow.db"),
        ("file:///runs", "write sqlite:////runs/mlflow.db"),
        ("sqlite:runs.db", "write sqlite:///{here}/runs.db"),
        ("sqlite://runs.db", "write sqlite:///{here}/runs.db"),
        ("sqlite:/runs.db", "write sqlite:////runs.db"),
        ("sqlite://", "write sqlite:///{here}/mlflow.db"),
        ("sqlite:///:memory:", "write sqlite:///{here}/mlflow.db"),
    ],
)
def test_an_address_that_cannot_be_one_has_a_remedy_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = wrong(uri).remedy
    assert found == remedy.format(here=tmp_path)
    check_address(found.removeprefix("write "))


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("mlflow.example.org", "no scheme"),
        ("http://", "names no host"),
        ("http:5000", "names no host"),
        ("http://host:port", "no valid host or port"),
        ("htp://host:5000", "does not know: htp"),
        ("postgres://me@host/db", "does not know: postgres"),
        ("sqlite:////a?b/mlflow.db", "another file"),
        ("sqlite:////a%20b/mlflow.db", "another file"),
    ],
)
def test_an_address_says_what_is_wrong_with_it(uri: str, what: str) -> None:
    assert what in wrong(uri).what


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
    assert wrong(uri) is None


def test_a_database_that_lets_nobody_in_is_asked_once(tmp_path: Path) -> None:
    # MLflow asks ten times, for two minutes.
    uri = f"sqlite:///{tmp_path}/none/mlflow.db"
    with pytest.raises(OperationalError) as caught:
        check_server(uri)
    assert "cannot be opened" in diagnose(caught.value, uri).what


def test_a_password_is_not_shown() -> None:
    assert without_password("http://me:secret@host:1") == "http://host:1"
    error = ConnectionError("API request to http://me:secret@host:1/api failed")
    assert "secret" not in str(diagnose(error, "http://me:secret@host:1"))
    assert "secret" not in str(diagnose(ValueError("http://me:secret@host:1"), ""))


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        ("(sqlite3.OperationalError) database is locked", "holds the database", "wait"),
        ("(sqlite3.OperationalError) database or disk is full", "disk is full", "/st/mlflow.db"),
        ("[Errno 28] No space left on device", "disk is full", "free space"),
        ("attempt to write a readonly database", "read-only", "/st/mlflow.db"),
        ("[Errno 30] Read-only file system: '/st/a'", "read-only /st/a", "writable"),
        ("[Errno 37] No locks available", "drive has no file locks", "mounted with flock"),
        ("(sqlite3.OperationalError) disk I/O error", "does not support", "local disk"),
        ("unable to open database file", "cannot be opened", "right to read and write"),
        ("No module named 'psycopg2'", "module psycopg2", "install"),
        ("[Errno 13] Permission denied: '/mnt/x'", "write to /mnt/x", "--artifacts-destination"),
        ("SSLError('certificate verify failed: self-signed (_ssl.c:1)'", "self-signed", "_CERT_"),
        ("invalid path: /etc/ca.pem", "no certificate file /etc/ca.pem", "SERVER_CERT_PATH"),
        ("Caused by ProxyError('Unable to connect')", "proxy", "no_proxy"),
        ("Failed to resolve 'hst' ([Errno -2] ...)", "unknown host name", "DNS"),
        ("failed with timeout exception: Read timed out.", "no answer", "start the server"),
        ("Exceeded 30 redirects.", "other than MLflow", "log in where a proxy"),
        (
            "consuming input failed: server closed the connection",
            "the server does not answer",
            "start the",
        ),
        ("Param value 'x' had length 700, which exceeded length limit of 500", "length", "upgrade"),
        (
            "403. Response body: 'Invalid Host header - possible DNS'",
            "host name",
            "--allowed-hosts",
        ),
    ],
)
def test_each_fault_has_its_own_remedy(words: str, what: str, remedy: str) -> None:
    problem = diagnose(RuntimeError(words), "sqlite:////st/mlflow.db")
    assert what in problem.what
    assert remedy in problem.remedy


def test_the_end_of_what_mlflow_says_is_kept() -> None:
    problem = diagnose(RuntimeError("begins " + "x" * 5000 + " matters"), "sqlite:////st/mlflow.db")
    assert problem.what.startswith("RuntimeError: begins")
    assert problem.what.endswith("matters")


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


def fault(uri: str, monkeypatch: pytest.MonkeyPatch) -> Problem:
    """What a tracker says of a server, after a single request."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    runs = SweepRuns.__new__(SweepRuns)  # its experiment is all that is asked for
    tracker = Tracker(Store(Path("/nowhere")), runs)
    assert not tracker.check()
    assert tracker.problem is not None
    return tracker.problem


def test_a_server_that_never_answers_is_given_up_before_mlflow_tries_it() -> None:
    """MLflow itself would try for a minute, and again."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises((requests.Timeout, TimeoutError)) as caught:
            open_client(uri, answer_within=0.3)
    problem = diagnose(caught.value, uri)
    assert problem.what == "no answer in time"
    assert problem.is_temporary


@pytest.mark.parametrize(
    ("path", "what", "remedy", "is_temporary"),
    [
        ("401-", "refuses this user", "MLFLOW_TRACKING_USERNAME", False),
        ("403-html", "does not let this user write", "administrator", False),
        ("404-html", "no recent MLflow at this path", "browser", False),
        ("404-json", "something other than MLflow", "correct", False),
        ("200-html", "something other than MLflow", "proxy", False),
        ("405-", "something other than MLflow answers 405", "correct", False),
        ("500-", "has an error (500)", "log", True),
        ("503-html", "has an error (503)", "log", True),
        ("429-", "so many requests (429)", "wait", True),
    ],
)
def test_a_server_that_answers_otherwise(
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    what: str,
    remedy: str,
    *,
    is_temporary: bool,
) -> None:
    problem = fault(f"http://127.0.0.1:{port}/{path}", monkeypatch)
    assert what in problem.what
    assert remedy in problem.remedy
    assert problem.is_temporary == is_temporary


def test_a_server_that_knows_anything_is_no_mlflow(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}/200-")
    tracker = Tracker(Store(tmp_path), SweepRuns.__new__(SweepRuns))
    assert not tracker.log_report(tmp_path)
    assert "something other than MLflow" in str(tracker.problem)


def test_a_server_that_is_away_or_speaks_no_https(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the server does not answer" in fault("http://127.0.0.1:9", monkeypatch).what
    assert "write http://" in fault(f"https://127.0.0.1:{port}", monkeypatch).remedy
    assert "unknown host name" in fault("http://nowhere.invalid", monkeypatch).what


@pytest.fixture
def file(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database of a store at tmp_path."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copy(mlflow_database, tmp_path / "mlflow.db"))


def of_file(file: Path) -> Problem:
    tracker = Tracker(Store(file.parent), SweepRuns.__new__(SweepRuns))
    assert not tracker.check()
    assert tracker.problem is not None
    return tracker.problem


@pytest.mark.parametrize(
    ("revision", "what", "remedy"),
    [
        ("0584bdc529eb", "older MLflow (schema 0584bdc529eb)", "-m mlflow db upgrade sqlite:///"),
        ("ffffffffffff", "newer MLflow than", "upgrade MLflow here"),
    ],
)
def test_a_database_of_another_mlflow(file: Path, revision: str, what: str, remedy: str) -> None:
    with closing(sqlite3.connect(file)) as changed, changed:
        changed.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    problem = of_file(file)
    assert what in problem.what
    assert remedy in problem.remedy
    assert not problem.is_temporary


def test_a_database_that_is_none_is_moved_away_and_made_anew(file: Path) -> None:
    file.write_bytes(b"not a database " * 100)
    assert f"move {file} away; `sweeps sync`" in of_file(file).remedy
    file.unlink()
    assert Tracker(Store(file.parent), SweepRuns.__new__(SweepRuns)).check()


def test_a_database_on_a_drive_without_locks_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("fcntl.flock", refuse)
    problem = of_file(tmp_path / "mlflow.db")
    assert "no file locks" in problem.what
    assert "on another drive" in problem.remedy
    assert not (tmp_path / "mlflow.db").exists()


def test_a_database_that_another_process_holds(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            check_file(file, wait=0.1)
    problem = diagnose(caught.value, sqlite_uri(file))
    assert problem.is_temporary
    assert "another process" in problem.what


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
