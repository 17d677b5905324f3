"""A person's own command at the end of a run: a mail, a message, the next step of a script.

It finds in its environment what came out:

    SWEEP_STATE    done, failed or interrupted
    SWEEP_TEXT     how much is done, the best so far, and the error that ended it, if one did
    SWEEP_NAME     of the sweep, search or headline, as `sweeps list` shows it
    SWEEP_TABLES   its tables, separated by spaces; of a headline its cell; of a search nothing
    SWEEP_STORE    where its results are
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from sweeps.plan.contents import Entry, read_entries
from sweeps.store.store import Store
from wsss.errors import ForeseenError

LIMIT_S = 60
"""Seconds after which the command is ended."""
STATES = {0: "done", 130: "interrupted"}
"""Exit code of a run -> its state; any other has failed."""


class Started(NamedTuple):
    """What is run: its store, and its folder there, as `sweeps/V-tiny`."""

    store: Store
    path: str


def then_notify(command: str | None, started: Started, work: Callable[[], int]) -> int:
    """Do the work, then run a command, however the work ended; return the work's exit code.

    command: for the shell; None: nothing is run. If it fails, a warning says so and nothing else
    changes.
    """
    state = "failed"
    try:
        code = work()
        state = STATES.get(code, state)
        return code
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    finally:
        if command:
            _run(command, _told(state, started, sys.exception()))


def _told(state: str, started: Started, error: BaseException | None) -> dict[str, str]:
    """Return what the command finds in its environment."""
    entry = None
    try:
        entries = {each.path: each for each in read_entries(started.store)}
        entry = entries.get(started.path)
        text = _words(entry) if entry else f"{started.path}: nothing was started"
    except ForeseenError as unreadable:
        text = str(unreadable)
    return {
        "SWEEP_STATE": state,
        "SWEEP_TEXT": f"{text}; {error}" if error and str(error) else text,
        "SWEEP_NAME": started.path.rpartition("/")[2],
        "SWEEP_TABLES": " ".join(entry.tables) if entry else "",
        "SWEEP_STORE": started.store.address,
    }


def _words(entry: Entry) -> str:
    """Return e.g. `sweep V-tiny: 15 of 16 done, best V[0.5,0.1] 50.86 %`."""
    total = "" if entry.total is None else f" of {entry.total}"
    best = "" if entry.best_miou is None else f", best {entry.best} {entry.best_miou:.2f} %"
    return entry.problem or f"{entry.title}: {entry.done}{total} done{best}"


def _run(command: str, told: dict[str, str]) -> None:
    """Run a command; say on stderr if it fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            shell=True,
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"was ended after {LIMIT_S} s"
    else:
        why = f"ended with exit code {done.returncode}" if done.returncode else ""
    if why:
        print(f"warning: --notify {command}: {why}", file=sys.stderr)
