"""Tracking beside the sweep: a slow or absent server never holds up a trial."""

import queue
import threading
import time
from collections.abc import Callable

from sweeps.plan import Trial
from sweeps.tracking import Tracker

RETRY_SECONDS = 20.0
"""How long to leave a server alone after it failed."""


class TrackingThread:
    """Feeds a Tracker from one background thread. Use as a context manager.

    Notices are only hints which trial changed; the tracker reads the store. Whatever could not be
    logged is tried once more at the end, and by `sweeps sync` after that.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self.tracker, self.warn = tracker, warn
        self.notices: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self.running: frozenset[str] = frozenset()
        self.warned = False
        self.retry_at = 0.0
        self.thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __enter__(self) -> "TrackingThread":
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.notices.put(None)
        self.thread.join(timeout=60)

    def notice(self, trial: Trial, *, running: frozenset[str]) -> None:
        """Say that a trial's results changed, and which run ids are at work now."""
        self.running = running
        self.notices.put(trial)

    def _work(self) -> None:
        while True:
            pending, last = self._next_batch()
            if pending and time.monotonic() >= self.retry_at:
                self._sync(pending)
            if last:
                return

    def _sync(self, pending: dict[str, Trial]) -> None:
        if self.tracker.sync(pending.values(), running=self.running):
            return
        self.retry_at = time.monotonic() + RETRY_SECONDS
        if not self.warned:
            self.warn(
                f"tracking at {self.tracker.uri} fails ({self.tracker.problem}); the sweep goes "
                "on and everything is kept in the store"
            )
            self.warned = True

    def _next_batch(self) -> tuple[dict[str, Trial], bool]:
        """Wait for a notice and take all that are there: (trials by id, whether it is the end)."""
        pending: dict[str, Trial] = {}
        item = self.notices.get()
        while True:
            if item is None:
                return pending, True
            pending[item.run_id] = item
            try:
                item = self.notices.get_nowait()
            except queue.Empty:
                return pending, False
