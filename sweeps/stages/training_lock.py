"""One process trains a network at a time, whichever runs need it."""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import Timeout

from sweeps.store.lease import STALE_SECONDS, Lease, LeaseHeldError
from sweeps.store.store import CamFolder, StoreError, read_json, write_json

LOCK_WAIT_SECONDS = 30.0
"""How long to wait for a dying predecessor of the same trial to let go."""


@contextmanager
def training_lock(cam: CamFolder, own_run: str) -> Iterator[Lease | None]:
    """Hold a training, while another run of it does its part for as long as that takes.

    A predecessor of this very run is waited for LOCK_WAIT_SECONDS, and on another machine until its
    lease has run out. A lock ends with its process. Yields the lease if the lock is one.
    """
    lock, holder = cam.lock(note=own_run), cam.path / "holder.json"
    lease = lock if isinstance(lock, Lease) else None
    while True:
        try:
            lock.acquire(timeout=LOCK_WAIT_SECONDS + (STALE_SECONDS if lease else 0))
            break
        except Timeout as held:
            if isinstance(held, LeaseHeldError):
                other, where = held.holder.get("note"), str(held)
            else:
                other, where = (read_json(holder) or {}).get("run_id"), str(cam.path)
            if other in (None, "", own_run):
                raise StoreError(
                    f"{where}: another process is training this; wait for it or end it"
                ) from None
    try:
        write_json(holder, {"run_id": own_run})
        yield lease
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
