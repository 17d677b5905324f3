"""How a training is carried out on this machine. Nothing here is part of an id.

On the CPU, this includes what happens to freed memory. A step allocates and frees the same large
arrays again and again. By default glibc returns each to the system, which clears its pages for the
next step: a tenth of a MobileNetV2 step's time (docs/performance.md). If it is kept instead, a
process stays at its peak memory until it ends.
"""

import ctypes
import functools
import os
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Execution:
    """Options of the one training loop; none of them moves a result beyond rounding."""

    num_loader_workers: int | None = None
    """Processes that load data; None: chosen by the machine's CPUs with a GPU, else 0."""
    micro_batch: int | None = None
    """Images of one rank per forward, their gradients added up; None: as many as memory allows."""
    checkpoint_minutes: float = 10.0
    """Minutes without a checkpoint after which one is written within an epoch; 0: never."""
    gpu_share: float = 1.0
    """Share of a GPU's memory that this process may fill, in (0, 1]."""


def usable_cpus() -> int:
    """Return how many CPUs this process may use: all, where the system has no sets (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SWITCH_VARIABLE = "WSSS_KEEP_MEMORY"
"""Environment variable: 0 lets freed memory go back to the system, as glibc does by default."""

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3), from <malloc.h>."""
NEVER = -1
TOP_PAD_BYTES = 64 * 2**20
"""Requested from the system beyond what is needed, each time."""

TUNABLES_VARIABLE = "GLIBC_TUNABLES"
TUNABLES = {
    "arena_max": 1,  # else a thread's large arrays are mapped, and unmapped, one by one
    "mmap_max": 0,
    "trim_threshold": 2**62,
    "top_pad": TOP_PAD_BYTES,
    "hugetlb": 1,  # pages of 2 MiB where the system grants them
}
"""Of child processes, glibc.malloc.*: as mallopt above, but for all of their threads."""


@functools.cache
def keep_freed_memory() -> bool:
    """Make this process keep the memory that its first thread frees; return whether it does.

    It does with glibc (on most Linux systems), unless SWITCH_VARIABLE is 0.
    """
    if not _wanted():
        return False
    libc = ctypes.CDLL(None)
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: TOP_PAD_BYTES}
    done = [libc.mallopt(name, value) for name, value in settings.items()]
    return all(done)


def let_children_keep_memory() -> None:
    """Make processes started from now on keep the memory that any of their threads frees.

    Does nothing if TUNABLES_VARIABLE is set already.
    """
    if _wanted():
        settings = (f"glibc.malloc.{name}={value}" for name, value in TUNABLES.items())
        os.environ.setdefault(TUNABLES_VARIABLE, ":".join(settings))


def _wanted() -> bool:
    return os.environ.get(SWITCH_VARIABLE) != "0" and platform.libc_ver()[0] == "glibc"
