"""The signals that ask the driver for an end: SIGINT, SIGTERM and SIGHUP.

The first one asks for an orderly end (`Dispatch.is_ending`), a second one ends at once. Python
allows handlers in the main thread alone; in any other, none of this heeds them.
"""

import os
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Self

from wsss.basics.environment import variables

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TUNE_HANDLER = "TUNE_DISABLE_SIGINT_HANDLER"
"""Tune's own handler of SIGINT would end trials in mid-epoch."""
SECONDS_TO_LOAD = 0.05
"""Between two looks at whether an import has ended."""

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextmanager
def handled(numbers: Iterable[int], handler: Handler) -> Iterator[None]:
    """Handle signals by this for a while. Processes started meanwhile ignore what it ignores."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def held_back() -> Iterator[None]:
    """Let signals wait; at the end each that came is delivered, once.

    For `ray.init` and `ray.shutdown`: the first swallows a KeyboardInterrupt at one place and at
    another leaves a process that crashes at its end. And for what must be said at the end.
    """
    noted: list[int] = []
    try:
        with handled(SIGNALS, lambda number, frame: noted.append(number)):
            yield
    finally:
        for number in dict.fromkeys(noted):
            signal.raise_signal(number)


@contextmanager
def as_ctrl_c() -> Iterator[list[signal.Signals]]:
    """Let each of the three raise KeyboardInterrupt, unless it is ignored; yield those that came.

    After the first signal, what is being imported is loaded: torch aborts if an error meets its
    start, NumPy makes another error of it, and of code made from text, as named tuples are, Python
    ends as if killed. A second one does not wait; a second SIGHUP, as a terminal that closes may
    send, raises nothing.
    """
    terminals, came, waiting = _terminals(), list[signal.Signals](), list[threading.Timer]()

    def interrupt(number: int, frame: FrameType | None) -> None:
        is_first = not came
        came.append(signal.Signals(number))
        if number == signal.SIGHUP:
            _leave(terminals)
        if is_first and _is_import(frame):
            waiting[:] = [threading.Timer(SECONDS_TO_LOAD, come_again, came)]
            waiting[0].start()
        elif is_first or number != signal.SIGHUP:
            sys.unraisablehook = lambda _: None  # objects may be only half built
            raise KeyboardInterrupt

    def come_again(first: signal.Signals) -> None:
        waiting.clear()
        came.clear()
        interrupt_main(first)

    with handled([n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN], interrupt):
        try:
            yield came
        finally:
            if waiting:  # an import has just ended
                waiting[0].cancel()
                raise KeyboardInterrupt


def _is_import(frame: FrameType | None) -> bool:
    """Whether a frame is of an import, or of what one calls."""
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


class Interrupts(ExitStack):
    """Takes the three signals over while trials run. Use as a context manager.

    The first one sets `requested`; a further SIGINT or SIGTERM raises KeyboardInterrupt. A further
    SIGHUP does not, as a terminal that closes may send two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requested: str | None = None
        """The first signal's name."""
        self.terminals = _terminals()

    def __enter__(self) -> Self:
        self.enter_context(handled(_heeded(), self._handle))
        self.enter_context(variables(**{TUNE_HANDLER: "1"}))
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave(self.terminals)
        elif self.requested is not None:
            raise KeyboardInterrupt
        if self.requested is None:
            self.requested = signal.Signals(number).name


def lose_output() -> None:
    """Print nowhere from now on, as nobody reads it; then as after a terminal that closed."""
    _leave([1, 2] if os.path.sameopenfile(1, 2) else [1])
    if signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:  # which would kill this process
        signal.raise_signal(signal.SIGHUP)


def _heeded() -> set[signal.Signals]:
    """Return the three, without SIGHUP where it is ignored already, as under nohup."""
    is_deaf = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return set(SIGNALS) - ({signal.SIGHUP} if is_deaf else set())


def _terminals() -> list[int]:
    """Return the descriptors of standard output and error, if a person reads them."""
    return [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]


def _leave(descriptors: list[int]) -> None:
    """Write nowhere from now on: to print on a closed terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
