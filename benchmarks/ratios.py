"""Two ways of doing the same thing, timed alternately in one run, and their ratio printed.

Absolute times say little on a shared machine; the ratio of two measured in turn says more.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

ROUNDS = 5
Found = TypeVar("Found")
Way = Callable[[], object]


class Spread(NamedTuple):
    """A ratio over several rounds."""

    median: float
    low: float
    high: float


def faster(
    name: str, ours: Way, peer: Way, *, goal: float | None = None, rounds: int = ROUNDS
) -> Spread:
    """Print how many times as long as ours the peer takes: the larger, the better for us."""
    pairs = alternate(ours, peer, rounds)
    return show(name, [theirs / own for own, theirs in pairs], goal and f"at least {goal:g}")


def overhead(
    name: str, ours: Way, peer: Way, *, goal: float | None = None, rounds: int = ROUNDS
) -> Spread:
    """Print how many times as long as the peer ours takes: the smaller, the better for us."""
    pairs = alternate(ours, peer, rounds)
    return show(name, [own / theirs for own, theirs in pairs], goal and f"at most {goal:g}")


def alternate(ours: Way, peer: Way, rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """Return seconds (ours, peer) of each round, after one of each that does not count."""
    ours(), peer()
    return [(seconds(ours), seconds(peer)) for _ in range(rounds)]


def seconds(run: Way) -> float:
    """Return how long a call takes by the clock."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def in_new_process(function: Callable[..., Found], *arguments: object) -> Found:
    """Return what a module's function returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def high_water_mib(kind: str = "VmHWM") -> float:
    """Return this process's largest resident memory so far, or now (VmRSS), in MiB. Linux.

    ru_maxrss may include the parent's.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{kind}:")[2].split()[0]) / 1024


def show(
    name: str, values: list[float], goal: str | float | None = None, *, unit: str = "x"
) -> Spread:
    """Print a row: name, median, lowest and highest, goal."""
    spread = Spread(statistics.median(values), min(values), max(values))
    wanted = f"  goal: {goal}" if goal else ""
    print(
        f"{name:78} {spread.median:7.2f} {unit}  ({spread.low:.2f} to {spread.high:.2f}){wanted}",
        flush=True,
    )
    return spread
