"""Tracking beside the work: a slow or absent server never holds up a trial."""

import queue
import threading
import time
from collections.abc import Callable
from types import TracebackType

from sweeps.track.tracker import Tracker

RETRY_SECONDS = 20.0
"""How long to leave a server alone after it failed."""

GROUP = 8
"""Runs logged between two looks at whether the work has ended."""


class TrackingThread:
    """Feeds a Tracker from one background thread. Use as a context manager.

    If the work ends with an error, the runs are ended as killed.

    Notices are only hints which run changed; the tracker reads the store. What is not logged when
    the work ends is left to the synchronisation of all runs that follows it, and to the next one
    after that: two writers at once would give a trial two runs. It begins with a look at MLflow, so
    that a fault is known before hours of training.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self.tracker, self.warn = tracker, warn
        self.notices: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
        self.pending: dict[str, None] = {}
        """Ids of the runs that changed, the first to change first."""
        self.running: set[str] = set()
        self.ending, self.checked = threading.Event(), threading.Event()
        self.warned = False
        self.retry_at = 0.0
        self.thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __enter__(self) -> "TrackingThread":
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ending.set()
        self.notices.put(None)  # wakes it
        if self.checked.is_set():  # else it has written nothing, and will not
            self.thread.join(timeout=60)
        if error is not None and not self.thread.is_alive():
            self.tracker.abandon()

    def notice(self, child: str, *, running: bool) -> None:
        """Say that a child's results changed, and whether it is at work now."""
        self.notices.put((child, running))

    def _work(self) -> None:
        if not self.tracker.check():
            self._failed()
        self.checked.set()
        while True:
            self._take_notices()
            if self.ending.is_set():
                return
            if time.monotonic() < self.retry_at:
                self.pending.clear()
                continue
            group = list(self.pending)[:GROUP]
            for child in group:
                del self.pending[child]
            self._sync(group)

    def _sync(self, group: list[str]) -> None:
        if not self.tracker.sync(group, running=self.running):
            self._failed()

    def _failed(self) -> None:
        """Leave the server alone for a while; say why, once, and the remedy if one is needed."""
        self.retry_at = time.monotonic() + RETRY_SECONDS
        problem = self.tracker.problem
        if problem is None or self.warned or self.ending.is_set():
            return
        self.warned = True
        words = problem.what if problem.heals else str(problem)
        self.warn(
            f"tracking at {self.tracker.address} fails: {words}; the work goes on and everything "
            "is kept in the store"
        )

    def _take_notices(self) -> None:
        """Add all notices that are there to `pending`; wait for one if it is empty."""
        item = None if self.pending else self.notices.get()
        while True:
            if item is not None:
                child, running = item
                self.pending[child] = None
                (self.running.add if running else self.running.discard)(child)
            try:
                item = self.notices.get_nowait()
            except queue.Empty:
                return
