"""Peak resident memory of a trial's process, by preset, and what two of them share.

Each figure is of one process, which trains two batches on made-up pictures with all parts and both
views, on the CPU, from random weights (which take as much memory as trained ones). RSS is the
kernel's high-water mark; PSS, which counts a page that n processes map as 1/n, is sampled. Nothing
is compared with a peer. Usage: python -m benchmarks.sweep.memory [--large]. Linux; 8 GiB free.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

import psutil

from benchmarks.sweep.memory_work import NUM_SCORED

WORK = "benchmarks.sweep.memory_work"
SAMPLE_SECONDS = 0.2
KINDS = ("rss", "pss", "uss")
"""Resident memory; a page that n processes map counted as 1/n; what a process has for itself."""


class Measured(NamedTuple):
    """Memory of one or more processes at once, in MiB."""

    marks: list[dict[str, float]]
    """What each printed: `rss`, its high-water mark."""
    sampled: dict[str, float]
    """Each of KINDS, summed over them, at the sample with the largest rss."""
    seconds: float


def measure(
    work: str, preset: str = "tiny", batch_size: int = 8, *, copies: int = 1, threads: int = 1
) -> Measured:
    """Do a piece of work in `copies` processes at once, and sample them meanwhile."""
    words = [sys.executable, "-m", WORK, work, preset, str(batch_size)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    begun, largest = time.perf_counter(), dict.fromkeys(KINDS, 0.0)
    processes = [
        subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(copies)
    ]
    while any(process.poll() is None for process in processes):
        found = [sample(process.pid) for process in processes]
        summed = {kind: sum(one[kind] for one in found) for kind in KINDS}
        largest = max(largest, summed, key=lambda one: one["rss"])
        time.sleep(SAMPLE_SECONDS)
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{' '.join(words)}: exit {[p.returncode for p in processes]}")
    marks = [json.loads(output.splitlines()[-1]) for output in outputs]
    return Measured(marks, largest, time.perf_counter() - begun)


def sample(pid: int) -> dict[str, float]:
    """Return a process's memory now, in MiB; zeros once it has ended."""
    try:
        found = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return dict.fromkeys(KINDS, 0.0)
    return {kind: getattr(found, kind) / 2**20 for kind in KINDS}


def row(name: str, peak: float, measured: Measured | None = None, note: str = "") -> None:
    """Print a row: what, peak RSS, and the sampled PSS."""
    pss = f"PSS {measured.sampled['pss']:7.0f}  {measured.seconds:5.1f} s" if measured else note
    print(f"{name:58} {peak:8.0f} MiB  {pss}", flush=True)


def trials() -> None:
    """Print the memory of whole trials, for presets that a CPU can run at their own batch size."""
    (inside,) = measure("ray").marks
    row("before training: Ray's process of a trial", inside["before"])
    row("trial, tiny, in Ray's process", inside["rss"])
    for preset, batch_size in (("tiny", 8), ("short", 16)):
        found = measure("trial", preset, batch_size)
        row(f"trial, {preset}, batch {batch_size}", found.marks[0]["rss"], found)


def large_trainings() -> None:
    """Print the memory of the paper's preset, extrapolated, and a check of that with short."""
    for preset, threads in (("short", 1), ("paper", os.cpu_count() or 1)):
        peaks = []
        for batch_size in (1, 2):
            found = measure("training", preset, batch_size, threads=threads)
            peaks.append(found.marks[0]["rss"])
            row(f"training alone, {preset}, batch {batch_size}", peaks[-1], found)
        row(
            f"training alone, {preset}, batch 16, EXTRAPOLATED",
            peaks[0] + 15 * (peaks[1] - peaks[0]),
            note="linearly, from batches of 1 and 2; for short it is too high",
        )
        if preset == "short":
            found = measure("training", preset, 16)
            row("training alone, short, batch 16, measured", found.marks[0]["rss"], found)
    found = measure("inference", "paper", NUM_SCORED, threads=os.cpu_count() or 1)
    row("inference alone, paper, one picture at a time", found.marks[0]["rss"], found)
    found = measure("deeplab", "short", 8)
    row("DeepLabv2 training alone, short, batch 8", found.marks[0]["rss"], found)


def shared() -> None:
    """Print the memory of two trials at once, started separately, as by Ray."""
    found = measure("trial", copies=2).sampled
    parts = "  ".join(f"{kind.upper()} {found[kind]:6.0f}" for kind in KINDS)
    print(f"{'two trials at once, tiny; MiB in all at the peak':58} {parts}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--large", action="store_true", help="also the paper's preset and DeepLabv2, some minutes"
    )
    large = parser.parse_args().large
    print("peak resident memory of one process on the CPU; PSS as sampled at the largest RSS")
    trials()
    shared()
    if large:
        large_trainings()


if __name__ == "__main__":
    main()
