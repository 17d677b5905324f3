"""Starting, watching and breaking small sweeps, for the tests of faults."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweeps.store.store import Folder
from wsss.training.checkpoint_names import checkpoint_name

HERE = Path(__file__).parent
SHRUNK = (
    "train.epochs=8",
    "train.crop_size=64",
    "train.batch_size=4",
    "labels.scales=[1.0]",
    "network.batch_norm=frozen",
)
TWO_CELLS = ("0.05", "0.04")


def environment(**extra: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | extra


def command(data: Path, store: Path, *more: str, cells: tuple[str, ...] = TWO_CELLS) -> list[str]:
    return [
        sys.executable,
        str(HERE / "chaos_driver.py"),
        "--store",
        str(store),
        "--data",
        str(data),
        "--set",
        *SHRUNK,
        "--cells",
        *cells,
        *more,
    ]


def run(
    words: list[str], *, timeout: float = 480, **extra: str
) -> subprocess.CompletedProcess[str]:
    # Elsewhere than in a checkout, since Ray's workers import from the folder first.
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**extra),
        cwd=tempfile.gettempdir(),
        check=False,
    )


class Driver:
    """A sweep that runs in a session of its own, its output in a file."""

    def __init__(self, words: list[str], log: Path, **extra: str) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                words,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(**extra),
                cwd=tempfile.gettempdir(),
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text()

    def until(self, true: Callable[[], Any], what: str, *, seconds: float = 300) -> Any:
        """Wait for something, which must happen while the sweep still runs."""
        deadline = time.monotonic() + seconds
        while not (found := true()):
            assert self.process.poll() is None, f"ended before {what}: {self.output()}"
            assert time.monotonic() < deadline, f"{what} did not happen: {self.output()}"
            time.sleep(0.02)
        return found

    def wait(self, seconds: float = 400) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(timeout=seconds)

    def trial_processes(self) -> list[int]:
        """Pids of the processes in which Tune's trials are at work."""
        return self.ray_named("ResourceTrainable")

    def ray_named(self, name: str) -> list[int]:
        """Pids of this sweep's Ray actors of a class."""
        return ray_processes(self.session(), rf"^ray::.*{name}")

    def session(self) -> set[int]:
        """Pids of the driver and its descendants."""
        return descendants(self.process.pid)


@contextmanager
def started(words: list[str], log: Path, **extra: str) -> Iterator[Driver]:
    """Start a sweep; whatever of it is left at the end is killed, by pid."""
    driver = Driver(words, log, **extra)
    seen: set[int] = set()
    try:
        yield driver
    finally:
        seen |= driver.session()
        for pid in seen:
            kill(pid, signal.SIGKILL)
        driver.process.wait()


def end_orphans(driver: Driver, among: set[int]) -> None:
    """Kill what a killed driver has left at work: a trial goes on until it notices."""
    driver.wait()
    for pid in among:
        kill(pid, signal.SIGKILL)


def kill(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return


def processes() -> dict[int, tuple[int, str]]:
    """Pid -> (parent, command line) of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
        found[int(folder.name)] = (int(stat.rsplit(")", 1)[1].split()[1]), words)
    return found


def descendants(pid: int) -> set[int]:
    table, found = processes(), {pid}
    while more := {child for child, (parent, _) in table.items() if parent in found} - found:
        found |= more
    return found


def ray_processes(among: set[int], pattern: str) -> list[int]:
    table = processes()
    return [pid for pid in sorted(among) if pid in table and re.search(pattern, table[pid][1])]


def epochs(store: Path) -> dict[str, list[int]]:
    """Training -> its recorded epochs."""
    return {
        path.name: [record["epoch"] for record in Folder(path).epochs()]
        for path in (store / "cams").glob("*")
    }


def results(store: Path) -> dict[str, dict[str, Any]]:
    paths = (store / "runs").glob("*/done.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def failures(store: Path) -> dict[str, dict[str, Any]]:
    paths = (store / "runs").glob("*/failure.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def in_mid_training(store: Path, epoch: int = 1) -> Callable[[], Any]:
    """Whether a training has a checkpoint and is not finished."""

    def found() -> bool:
        for folder in (store / "cams").glob("*"):
            is_saved = (folder / "checkpoints" / checkpoint_name(epoch)).exists()
            if is_saved and not (folder / "done.json").exists():
                return True
        return False

    return found
