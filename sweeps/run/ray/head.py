"""Watches for the loss of the head of Ray.

Ray cannot go on without its head: a minute after the loss it ends every process that uses it, with
a line that says nothing of the sweep. So a person is told before.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread


@contextmanager
def watched_head(
    on_lost: Callable[[str], object],
    address: str = "",
    *,
    between: float = 5.0,
    limit: float = 20.0,
) -> Iterator[None]:
    """Call a function once, in a thread, when nothing has listened at the head for some time.

    on_lost: is given the address. address: HOST:PORT; default: that of the cluster in use.
    between: seconds from one look to the next, and the longest wait for its answer. limit: seconds
    without an answer until the head counts as lost, within the minute after which Ray ends all.
    """
    if not address:
        import ray

        address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    ended = Event()

    def watch() -> None:
        silent = 0.0
        while silent < limit:
            if ended.wait(between):
                return
            try:
                socket.create_connection((host.strip("[]"), int(port)), between).close()
                silent = 0.0
            except OSError:
                silent += between
        on_lost(address)

    thread = Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(between)
