"""A process of Ray's ends with its raylet, even one whose exit nobody has collected."""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeps.run.ray import train as ray_train
from sweeps.run.ray.train import end_with_raylet
from sweeps.run.ray.tune import InOneProcess, distributed_trial

REPO = Path(__file__).parents[3]

RAYLET = """
import os, subprocess, sys, time
pid = str(os.getpid()) if sys.argv[1] == "raylet" else "1"
subprocess.Popen([sys.executable, "-c", sys.argv[2]], env=os.environ | {"RAY_RAYLET_PID": pid})
time.sleep(60)
"""

WORKER = """
import threading, time
from sweeps.run.ray import train
train.CHECK_SECONDS = 0.2
print(train.end_with_raylet(), train.end_with_raylet(), threading.active_count(), flush=True)
time.sleep(4)
print("went on", flush=True)
"""


def started(kind: str) -> "subprocess.Popen[str]":
    """A raylet or a shell with a worker."""
    command = [sys.executable, "-c", RAYLET, kind, WORKER]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)


def said_by_the_orphan(parent: "subprocess.Popen[str]") -> tuple[str, str]:
    """Kill a worker's parent and leave it a zombie: what the worker said before and after that."""
    first = parent.stdout.readline()
    os.kill(parent.pid, signal.SIGKILL)
    with selectors.DefaultSelector() as selector:
        selector.register(parent.stdout, selectors.EVENT_READ)
        assert selector.select(30), "the worker neither ended nor went on"
    state = Path(f"/proc/{parent.pid}/stat")
    if state.exists():  # on Linux
        assert state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return first, parent.stdout.read()


def test_a_worker_ends_with_a_raylet_that_is_still_a_zombie_and_with_no_other_parent() -> None:
    with started("raylet") as raylet, started("shell") as shell:
        assert said_by_the_orphan(raylet) == ("True True 2\n", "")
        assert said_by_the_orphan(shell) == ("False False 1\n", "went on\n")
    assert not end_with_raylet()


class Watched(Exception):  # noqa: N818
    """The process has taken care of its raylet's end."""


@pytest.mark.parametrize(
    "start",
    [
        lambda nothing: InOneProcess.setup(nothing, {}, nothing),
        lambda nothing: distributed_trial({}, {}, nothing, nothing),
        lambda nothing: ray_train._worker({}),
    ],
    ids=["a trial", "a trial on workers", "a worker of Ray Train"],
)
def test_processes_of_ray_watch_their_raylet_before_anything_else(
    start: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch() -> None:
        raise Watched

    monkeypatch.setattr(ray_train, "end_with_raylet", watch)
    with pytest.raises(Watched):
        start(None)
