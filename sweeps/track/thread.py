"""Tracking beside the sweep: a slow or absent server never holds up a trial."""

import queue
import threading
import time
from collections.abc import Callable

from sweeps.plan.trials import Trial
from sweeps.track.tracker import Tracker

RETRY_SECONDS = 20.0
"""How long to leave a server alone after it failed."""

GROUP = 8
"""Trials logged between two looks at whether the sweep has ended."""


class TrackingThread:
    """Feeds a Tracker from one background thread. Use as a context manager.

    Notices are only hints which trial changed; the tracker reads the store. What is not logged when
    the sweep ends is left to the synchronisation of all trials that follows it, and to `sweeps
    sync` after that: two writers at once would give a trial two runs.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self.tracker, self.warn = tracker, warn
        self.notices: queue.SimpleQueue[Trial | None] = queue.SimpleQueue()
        self.pending: dict[str, Trial] = {}
        self.ending = threading.Event()
        self.running: frozenset[str] = frozenset()
        self.warned = False
        self.retry_at = 0.0
        self.thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def __enter__(self) -> "TrackingThread":
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.ending.set()
        self.notices.put(None)  # wakes it
        self.thread.join(timeout=60)

    def notice(self, trial: Trial, *, running: frozenset[str]) -> None:
        """Say that a trial's results changed, and which run ids are at work now."""
        self.running = running
        self.notices.put(trial)

    def _work(self) -> None:
        while True:
            self._take_notices()
            if self.ending.is_set():
                return
            if time.monotonic() < self.retry_at:
                self.pending.clear()
                continue
            names = list(self.pending)[:GROUP]
            self._sync({name: self.pending.pop(name) for name in names})

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

    def _take_notices(self) -> None:
        """Add all notices that are there to `pending`; wait for one if it is empty."""
        item = None if self.pending else self.notices.get()
        while True:
            if item is not None:
                self.pending[item.run_id] = item
            try:
                item = self.notices.get_nowait()
            except queue.Empty:
                return
