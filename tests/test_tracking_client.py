"""A local MLflow database is whole, whenever the process that makes it is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sweeps.tracking_client import open_client

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own

OPEN = "import sys; from sweeps.tracking_client import open_client; open_client(sys.argv[1])"


@pytest.mark.parametrize("num_bytes", [1, 100_000])
def test_a_database_whose_maker_was_killed_can_be_used(tmp_path: Path, num_bytes: int) -> None:
    """At 100 kB, MLflow would find some of its tables and refuse to make the others."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with subprocess.Popen([sys.executable, "-c", OPEN, uri], stderr=subprocess.DEVNULL) as process:
        while _size(tmp_path) < num_bytes:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "mlflow.db").exists()
    client = open_client(uri)
    run = client.create_run("0")
    assert open_client(uri).get_run(run.info.run_id).info.status == "RUNNING"
    assert not list(tmp_path.glob("*.partial*"))


def _size(folder: Path) -> int:
    found = 0
    for path in folder.glob("mlflow.db.partial*"):
        with suppress(FileNotFoundError):  # SQLite's journals come and go
            found += path.stat().st_size
    return found
