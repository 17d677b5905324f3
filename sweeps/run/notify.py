"""The user's own command at the end of a run: a mail, a message, the next step of a script.

Its environment says how the run ended:

    SWEEP_STATE    done, failed or interrupted
    SWEEP_TEXT     how much is done, the best result so far, and the error that ended it, if any
    SWEEP_NAME     name of the sweep, search or headline, as in `sweeps list`
    SWEEP_TABLES   a sweep's tables, separated by spaces; a headline's cell; empty for a search
    SWEEP_STORE    where the results are
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from sweeps.plan.contents import Entry, read_entries
from sweeps.store.rooms import Driven
from sweeps.store.store import Store
from wsss.basics.errors import ForeseenError
from wsss.basics.printable import printable

LIMIT_S = 60
"""Seconds after which the command is killed."""
MAX_CHARACTERS = 10_000
"""Of SWEEP_TEXT: an error may have a line per picture, and the system refuses 128 KiB."""
STATES = {0: "done", 130: "interrupted"}
"""Exit code of a run -> its state; any other code means failed."""


def then_notify(
    command: str | None,
    store: Store,
    what: Driven,
    work: Callable[[], int],
    *,
    limit_s: float = LIMIT_S,
) -> int:
    """Do the work on a sweep, search or headline, then run a command; return the work's exit code.

    command: for the shell, run however the work ended; None: nothing is run. If it fails, or takes
    more than `limit_s`, there is a warning and no more.
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
            try:
                why = _run(command, _environment(state, store, what, sys.exception()), limit_s)
            except Exception as refused:  # whatever the reason: the work is done
                why = f"cannot be run ({refused})"
            if why:
                print(f"warning: --notify {printable(command)}: {printable(why)}", file=sys.stderr)


def _environment(
    state: str, store: Store, what: Driven, error: BaseException | None
) -> dict[str, str]:
    """Return the command's environment variables."""
    entry = None
    try:
        entry = next((each for each in read_entries(store) if each.path == what.path), None)
        text = _summary(entry) if entry else f"{what.path}: not started"
    except (ForeseenError, OSError) as unreadable:
        text = str(unreadable)
    told = printable(f"{text}; {error}" if error and str(error) else text)
    return {
        "SWEEP_STATE": state,
        "SWEEP_TEXT": told if len(told) <= MAX_CHARACTERS else f"{told[:MAX_CHARACTERS]}...",
        "SWEEP_NAME": what.name,
        "SWEEP_TABLES": " ".join(entry.tables) if entry else "",
        "SWEEP_STORE": store.address,
    }


def _summary(entry: Entry) -> str:
    """Return e.g. `sweep V-tiny: 15 of 16 done, best V[0.5,0.1] 50.86 %`."""
    total = "" if entry.total is None else f" of {entry.total}"
    best = "" if entry.best_miou is None else f", best {entry.best} {entry.best_miou:.2f} %"
    return entry.problem or f"{entry.title}: {entry.done}{total} done{best}"


def _run(command: str, environment: dict[str, str], limit_s: float) -> str:
    """Run a command; return why it failed, "" if it did not."""
    with subprocess.Popen(
        command, shell=True, env=os.environ | environment, stdin=subprocess.DEVNULL, process_group=0
    ) as process:
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"was ended after {limit_s} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the shell and what it has started
    return f"ended with exit code {code}" if code else ""
