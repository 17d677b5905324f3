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

import typer.core

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SignalError(KeyboardInterrupt):
    """A signal has come. Like Ctrl-C it passes every handler of errors, and files stay whole."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


class EndedBySignals(typer.core.TyperGroup):
    """A program's commands, each of which a signal ends in order."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Raises SystemExit if a signal ends it."""
        with _signals_raise():
            try:
                return super().invoke(ctx)
            except SignalError as end:
                with suppress(OSError):  # the terminal may be gone
                    print(
                        f"ended by {end.signal.name}: what is finished is kept; give the same "
                        "command again to go on",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
                raise SystemExit(128 + end.signal) from None


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Raise SignalError in the main thread for each signal that is not ignored."""
    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, _raise) for number in taken}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    # A second Ctrl-C does not wait for the end; a terminal that closes often sends SIGHUP twice.
    signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
    raise SignalError(number)
