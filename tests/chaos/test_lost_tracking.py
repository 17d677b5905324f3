"""An MLflow server that goes away in the middle of a sweep."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos_sweeps import command, family, in_mid_training, kill, run, started
from commands import environment
from invariants import assert_equal_stores, assert_equal_tracking
from outcomes import results

pytestmark = [pytest.mark.chaos, pytest.mark.cluster, pytest.mark.timeout(500)]


@contextmanager
def server(folder: Path, port: int) -> Iterator[int]:
    """An MLflow server on loopback; yields its pid once it answers."""
    folder.mkdir(exist_ok=True)
    own = f"--backend-store-uri sqlite:///{folder}/mlflow.db --artifacts-destination {folder}/made"
    options = f"--host 127.0.0.1 --port {port} --workers 1 {own}"
    words = [sys.executable, "-m", "mlflow", "server", *options.split()]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.5)
        yield process.pid
    finally:
        end(process.pid)
        process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def end(pid: int) -> None:
    """Kill a process and its children, by their ids."""
    for one in family(pid):
        kill(one.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_lost_in_the_middle_gets_everything_when_it_is_back(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    """It is away at the end as well; the same command, or `sync`, brings it up to date."""
    store, folder, port = tmp_path / "store", tmp_path / "server", free_port()
    uri = f"http://127.0.0.1:{port}"
    with server(folder, port) as pid:
        words = command(pictures, store)
        with started(words, tmp_path / "log", MLFLOW_TRACKING_URI=uri) as driver:
            driver.until(in_mid_training(store), "a checkpoint")
            end(pid)
            assert driver.wait() == 0, driver.output()
    assert len(results(store)) == 2
    assert "is not up to date" in driver.output()
    with server(folder, port):
        synced = run([*command(pictures, store)], MLFLOW_TRACKING_URI=uri)
        assert synced.returncode == 0, synced.stdout + synced.stderr
    assert "is up to date" in synced.stdout
    assert_equal_stores(store, unbroken)
    assert_equal_tracking(folder / "mlflow.db", unbroken / "mlflow.db")
