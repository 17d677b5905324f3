"""Ctrl-C, SIGTERM and a lost terminal end a command of `wsss` with one line and no traceback.

The exit code is 128 and the signal's number, as a shell has it: 130, 143 or 129. A signal that is
ignored when the command starts, as SIGHUP is under `nohup`, stays ignored.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from sweeps.run.stopping import SIGNALS, handled
from wsss.program import Program


class EndedBySignals(Program):
    """A program's commands, each of which a signal ends in order."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Raises SystemExit if a signal ends it."""
        with _signals_raise() as came:
            try:
                return super().invoke(ctx)
            except BaseException:
                if not came:
                    raise
                # Or what became of it: torch, for one, raises RuntimeError in mid-checkpoint.
                with suppress(OSError):  # the terminal may be gone
                    print(
                        f"ended by {came[0].name}: what is finished is kept; give the same "
                        "command again to go on",
                        file=sys.stderr,
                        flush=True,
                    )
                raise SystemExit(128 + came[0]) from None


@contextmanager
def _signals_raise() -> Iterator[list[signal.Signals]]:
    """Raise KeyboardInterrupt in the main thread for each signal that is not ignored.

    Yields a list to which it is added before.
    """
    came: list[signal.Signals] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        # A second Ctrl-C does not wait; a terminal that is closed often sends SIGHUP twice.
        signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        sys.unraisablehook = lambda _: None  # of objects that are only half built
        raise KeyboardInterrupt

    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    with handled(taken, end):
        yield came
