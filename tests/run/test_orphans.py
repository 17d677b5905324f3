"""A process of Ray's ends with its raylet, even one whose exit nobody has collected."""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sweeps.run.ray import train as ray_train
from sweeps.run.ray.resources import Resources
from sweeps.run.ray.train import end_with_raylet
from sweeps.run.ray.tune import drawn_trial, sweep_trial
from sweeps.stages import trial
from sweeps.stages.stage import Place
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.training import process

REPO = Path(__file__).parents[2]

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
    assert parent.stdout
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


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a process did, in order: took care of its raylet's end, worked."""
    found: list[str] = []

    def work(*_: Any, **__: Any) -> Iterator[dict[str, float]]:
        found.append("work")
        return iter(())

    monkeypatch.setattr(ray_train, "end_with_raylet", lambda: found.append("watch"))
    monkeypatch.setattr(process, "pick_device", lambda cpus: torch.device("cpu"))
    monkeypatch.setattr(trial, "run_group", work)
    monkeypatch.setattr(trial, "search_trial", work)
    return found


def test_trials_of_sweeps_and_searches_watch_their_raylet_before_they_work(done: list[str]) -> None:
    resources: Any = Resources(cpus=1.0)
    place = Place(Store(Path("store")), Path("data"))
    sweep_trial({"cam_id": "a"}, {"a": (RunConfig(),)}, place, resources)
    search: Any = SimpleNamespace(config=lambda settings: RunConfig(), objective="best")
    drawn_trial({"settings": {}}, search, place, 1.0)
    assert done == ["watch", "work"] * 2


def test_workers_of_ray_train_watch_their_raylet_first(
    done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise RuntimeError("no context of Ray Train here")

    monkeypatch.setattr("ray.train.get_context", absent)
    with pytest.raises(RuntimeError, match="no context"):
        ray_train._worker({})
    assert done == ["watch"]
