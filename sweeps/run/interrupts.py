"""SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TUNE_HANDLER = "TUNE_DISABLE_SIGINT_HANDLER"


class Interrupts:
    """Takes the signals over while a sweep runs. Use as a context manager.

    The first signal sets `requested`, which the sweep reads; any further one raises
    KeyboardInterrupt. Enter it after `ray.init`, which sets a handler of SIGTERM. Outside the main
    thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """The first signal's name."""
        self.previous: dict[int, Any] = {}
        self.tune_handler = os.environ.get(TUNE_HANDLER)

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            os.environ[TUNE_HANDLER] = "1"  # Tune's own would end trials in mid-epoch
            self.previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if self.tune_handler is None:
            os.environ.pop(TUNE_HANDLER, None)
        else:
            os.environ[TUNE_HANDLER] = self.tune_handler

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name
