"""What a search has in a bucket beside its trials: one driver at a time, and its history."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import Timeout

from sweeps.plan.search import Search
from sweeps.plan.search_history import Listen, SearchTrial
from sweeps.store.lease import Lease, LocalLock
from sweeps.store.store import Store, StoreError

logger = logging.getLogger(__name__)


@contextmanager
def driving(search: Search, store: Store) -> Iterator[Lease | LocalLock]:
    """Hold a search as its only driver, its history as it is in the bucket; yield the lease.

    Raises StoreError if another process runs the search, also if it took
    the lease over: then this one is interrupted first, as by Ctrl-C.
    """
    folder = search.folder(store)
    lock = store.remote.lock(
        f"searches/{search.name}", folder / "driver.lock",
        on_lost=lambda: os.kill(os.getpid(), signal.SIGINT),
    )  # fmt: skip
    try:
        with lock.acquire(timeout=0):
            store.pull_folder(folder)  # again, as nobody else writes it from now on
            yield lock
            lock.check()
    except Timeout as held:
        raise StoreError(
            f"another process runs search {search.name} ({held}); wait for it or end it"
        ) from None


def pushing(search: Search, store: Store, lease: Lease | LocalLock, listen: Listen) -> Listen:
    """Return a listener that uploads the history before a trial goes on, then tells the other.

    So no checkpoint in the bucket has an epoch that the history lacks. While the bucket is away the
    search goes on; what is missing goes up with the next epoch, or at the end. An ended trial's
    losses come here from where it ran, for MLflow.
    """

    def push(trial: SearchTrial | None) -> None:
        try:
            lease.check()
            store.push_folder(search.folder(store))
            if trial is None or trial.ended:
                store.pull_results()
        except StoreError as error:
            logger.warning("%s; the search goes on", error)
        listen(trial)

    return push
