"""Watches for the loss of the head of Ray.

Ray cannot go on without its head: a minute after the loss it ends every process that uses it, with
a line that says nothing of the sweep. So a person is told before.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread


@dataclass(frozen=True)
class Patience:
    """Seconds, within the minute after which Ray ends the process."""

    between: float = 5.0
    """From one look to the next, and the longest wait for its answer."""
    silent: float = 20.0
    """Without an answer, until the head counts as lost."""


PATIENCE = Patience()


@contextmanager
def watched_head(
    on_lost: Callable[[str], object], address: str = "", patience: Patience = PATIENCE
) -> Iterator[None]:
    """Call a function once, in a thread, when nothing has listened at the head for some time.

    on_lost: is given the address. address: HOST:PORT; default: that of the cluster in use.
    """
    if not address:
        import ray

        address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    ended = Event()

    def is_there() -> bool:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), patience.between):
                return True
        except OSError:
            return False

    def watch() -> None:
        silent = 0.0
        while not ended.wait(patience.between):
            silent = 0.0 if is_there() else silent + patience.between
            if silent >= patience.silent:
                on_lost(address)
                return

    thread = Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(patience.between)
