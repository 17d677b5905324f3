"""Ctrl-C where an exception in the middle would do harm."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back() -> Iterator[None]:
    """Within this context SIGINT waits; at its end it is delivered, once.

    For `ray.init` and `ray.shutdown`: the first swallows a KeyboardInterrupt at one place and at
    another leaves a process that crashes at its end. Outside the main thread, where Python allows
    no handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if noted:
            signal.raise_signal(signal.SIGINT)
