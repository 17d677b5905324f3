"""Freed memory stays with the process: a training on the CPU need not ask for it again."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from sweeps.run.ray.resources import Resources
from sweeps.run.ray.start import start_ray
from wsss.training.execution import keep_freed_memory, let_children_keep_memory
from wsss.training.process import pick_device

MEASURE = """
import resource, sys, threading
from wsss.training.execution import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        large = [bytearray(b"1") * 2**26 for _ in range(3)]
        del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def measure():
    faults()
    print(faults())

if sys.argv[1] == "first thread":
    keep_freed_memory()
    measure()
else:
    thread = threading.Thread(target=measure)
    thread.start()
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


def page_faults(where: str) -> int:
    """How many pages 9 arrays of 64 MiB cost a process of its own."""
    command = [sys.executable, "-c", MEASURE, where]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@glibc
def test_large_arrays_are_not_asked_of_the_system_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setenv("WSSS_KEEP_MEMORY", "0")
    let_children_keep_memory()
    by_default = page_faults("thread")
    monkeypatch.delenv("WSSS_KEEP_MEMORY")
    assert page_faults("first thread") * 10 < by_default
    let_children_keep_memory()
    assert page_faults("thread") * 10 < by_default


def test_tunables_that_are_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    let_children_keep_memory()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WSSS_KEEP_MEMORY", raising=False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", None)
    assert keep_freed_memory.__wrapped__() is False


@pytest.mark.skipif(torch.cuda.is_available(), reason="trainings are not on the CPU")
def test_a_training_on_the_cpu_computes_in_the_threads_it_may_have() -> None:
    before = torch.get_num_threads()
    try:
        assert pick_device(3.0).type == "cpu"
        assert torch.get_num_threads() == 3
        pick_device(0.5)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@glibc
def test_ray_is_started_with_memory_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("WSSS_KEEP_MEMORY", raising=False)
    seen: list[str] = []
    monkeypatch.setattr(
        "ray.init", lambda *_, **__: seen.append(os.environ.get("GLIBC_TUNABLES", ""))
    )
    start_ray(Resources())
    assert "glibc.malloc.mmap_max=0" in seen[0]
    assert "glibc.malloc.arena_max=1" in seen[0]
