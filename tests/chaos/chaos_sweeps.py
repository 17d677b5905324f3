"""Starting, watching and breaking small sweeps, for the tests of faults."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from commands import environment

from wsss.training.checkpoint_names import checkpoint_name

DRIVER = str(Path(__file__).with_name("chaos_driver.py"))
SHRUNK = (
    "train.epochs=8",
    "train.crop_size=64",
    "train.batch_size=4",
    "labels.scales=[1.0]",
    "network.batch_norm=frozen",
)
TWO_CELLS = ("0.05", "0.04")


def command(data: Path, store: Path, *more: str, cells: tuple[str, ...] = TWO_CELLS) -> list[str]:
    where = ("--store", str(store), "--data", str(data))
    return [sys.executable, DRIVER, *where, "--set", *SHRUNK, "--cells", *cells, *more]


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
        found = []
        for one in family(self.process.pid):
            with suppress(psutil.NoSuchProcess):
                if re.search(rf"^ray::.*{name}", " ".join(one.cmdline())):
                    found.append(one.pid)
        return sorted(found)

    def session(self) -> set[int]:
        """Pids of the driver and its descendants."""
        return {one.pid for one in family(self.process.pid)}


@contextmanager
def started(words: list[str], log: Path, **extra: str) -> Iterator[Driver]:
    """Start a sweep; whatever of it is left at the end is killed, by pid."""
    driver = Driver(words, log, **extra)
    try:
        yield driver
    finally:
        for pid in driver.session():
            kill(pid, signal.SIGKILL)
        driver.process.wait()


def end_orphans(driver: Driver, among: set[int]) -> None:
    """Kill what a killed driver has left at work: a trial goes on until it notices."""
    driver.wait()
    for pid in among:
        kill(pid, signal.SIGKILL)


def kill(pid: int, how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, how)


def family(pid: int) -> list[psutil.Process]:
    """A process and its descendants; nothing once it has ended."""
    try:
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def in_mid_training(store: Path, epoch: int = 1) -> Callable[[], Any]:
    """Whether a training has a checkpoint and is not finished."""

    def found() -> bool:
        for folder in (store / "cams").glob("*"):
            is_saved = (folder / "checkpoints" / checkpoint_name(epoch)).exists()
            if is_saved and not (folder / "done.json").exists():
                return True
        return False

    return found
