"""How long commands take to start, by the clock, each in its own process.

Usage: python -m benchmarks.sweep.start_up. In each round, one process of every kind in turn: a bare
interpreter, the imports of torch, Ray and MLflow (once), and our commands. Prints seconds (goal:
half a second on an idle machine) and two ratios per command: to the bare interpreter, the lower
limit of any Python program, and of the imports to the command, which avoids them. `plan` has
checked the drawn data set before; `status` reads a sweep of 16 trials, none finished.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.ratios import ROUNDS, seconds, show
from sweeps.plan.sweep import BaseOptions, make_sweep, save_sweep
from sweeps.store.store import Store
from wsss.data.drawn.folder import draw_voc

REPO = Path(__file__).parents[2]
GOAL = 0.5
BARE, HEAVY = "python -c pass", "python -c 'import torch, ray, mlflow'"
OURS = {
    "sweeps --help": "Plan, run and read",
    "sweeps plan V": "16 cells, 16 distinct configurations",
    "sweeps status": "16 missing of 16 trials",
    "wsss --help": "Class activation maps",
}
"""Command -> what it must print."""


def prepare(folder: Path) -> None:
    """Draw the data set and save a sweep of Table V, for all commands."""
    data = draw_voc(folder / "data/drawn")
    sweep, _ = make_sweep(["V"], BaseOptions("tiny", data))
    save_sweep(Store(folder / "results"), sweep)


def command_line(name: str) -> list[str]:
    """Return the words of a process."""
    if name in OURS:
        return [sys.executable, "-m", *name.split()]
    return [sys.executable, "-c", "pass" if name == BARE else "import torch, ray, mlflow"]


def start(name: str, folder: Path) -> str:
    """Run a process in a folder; return what it printed. Raises CalledProcessError if it fails."""
    cache = str(folder / "cache")
    compiled = str(folder / "compiled")  # written in the first round, as by a user's first command
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "PYTHONPYCACHEPREFIX": compiled,
        "WSSS_CACHE": cache,
        "COLUMNS": "100",
    }
    for variable in ("WSSS_STORE", "PYTHONDONTWRITEBYTECODE"):
        environment.pop(variable, None)
    done = subprocess.run(
        command_line(name), cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def measure(folder: Path) -> dict[str, list[float]]:
    """Return seconds of each kind of process, in rounds, after one of each that does not count."""
    names = (BARE, HEAVY, *OURS)
    for name in names:
        assert OURS.get(name, "") in start(name, folder), name
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(ROUNDS):
        for name in names:
            if name != HEAVY or number == 0:
                times[name].append(seconds(partial(start, name, folder)))
    return times


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["WSSS_CACHE"] = str(folder / "cache")
        prepare(folder)
        times = measure(folder)
    for name, found in times.items():
        show(name, found, f"at most {GOAL:g} s, idle" if name in OURS else None, unit="s")
    for name in OURS:
        own, bare, (heavy,) = times[name], times[BARE], times[HEAVY]
        show(f"{name} / {BARE}", [a / b for a, b in zip(own, bare, strict=True)])
        show(f"{HEAVY} / {name}", [heavy / a for a in own])


if __name__ == "__main__":
    main()
