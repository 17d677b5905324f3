"""Tracking in the background: a slow or absent server never delays a trial."""

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from sweeps.store.attempts import Target
from sweeps.track.tracker import Tracker

RETRY_SECONDS = 20.0
"""Pause after a failure of the server."""

SAY_SECONDS, MAX_SECONDS = 10.0, 600.0
"""At the end: after how long the wait for a run that is being logged is said, and given up."""


class TrackingThread:
    """Runs a Tracker in one background thread. A listener, and a context manager.

    It connects to MLflow first, so that a fault is known before hours of training. A notice only
    says which run changed; the tracker reads the store. What is not logged when the work ends is
    left to the sync of all runs that follows: two writers at once would give a trial two runs. If
    the work ends with an error, the runs are ended as killed.
    """

    def __init__(
        self, tracker: Tracker, warn: Callable[[str], None], *, say_after: float = SAY_SECONDS
    ) -> None:
        self.tracker, self.warn, self.say_after = tracker, warn, say_after
        self.epochs: dict[str, float | None] = {}
        """Id of each run -> the epoch last heard of; None: not at work."""
        self.news = threading.Condition()
        """Held to read or change what follows; told of each change."""
        self.pending: dict[str, None] = {}
        """Ids of the runs that changed, the oldest change first."""
        self.running: set[str] = set()
        self.ending = False
        self.checked = threading.Event()
        self.warned = False
        self.retry_at = 0.0
        self.thread = threading.Thread(target=self._run, name="tracking", daemon=True)

    def __enter__(self) -> "TrackingThread":
        self.thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.news:
            self.ending = True
            self.news.notify()
        if self.checked.is_set():  # otherwise it has written nothing, and never will
            self.thread.join(self.say_after)
            if self.thread.is_alive():
                self.warn(f"waiting for tracking at {self.tracker.address}, at most 10 minutes")
                self.thread.join(MAX_SECONDS)
        if error is not None and not self.thread.is_alive():
            self.tracker.abandon()

    def update(
        self, trial: Target, *, status: str, record: Mapping[str, Any] | None = None
    ) -> None:
        """Notice a start, an epoch, a warning or an end, but no progress within an epoch."""
        news, is_running = record or {}, status == "running"
        epoch = news.get("epoch", 0.0)
        if is_running and epoch == self.epochs.get(trial.run_id) and "warning" not in news:
            return
        self.epochs[trial.run_id] = epoch if is_running else None
        self.notice(trial.run_id, running=is_running)

    def notice(self, child: str, *, running: bool) -> None:
        """Report that a child's results changed, and whether it is running."""
        with self.news:
            self.pending[child] = None
            (self.running.add if running else self.running.discard)(child)
            self.news.notify()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.warn(
                f"tracking at {self.tracker.address} has ended ({type(error).__name__}: {error}); "
                "the work continues, and what is not logged is tried again at its end"
            )

    def _work(self) -> None:
        if not self.tracker.check():
            self._failed()
        self.checked.set()
        while found := self._next():
            if not self.tracker.sync(*found):
                self._failed()

    def _next(self) -> tuple[list[str], set[str]] | None:
        """Wait for a run to log; return its id and those of all running ones, None at the end."""
        with self.news:
            while not self.ending:
                if time.monotonic() < self.retry_at:
                    self.pending.clear()
                if self.pending:
                    child = next(iter(self.pending))
                    del self.pending[child]
                    return [child], set(self.running)
                self.news.wait()
            return None

    def _failed(self) -> None:
        """Pause, and warn once: what is wrong, and the remedy."""
        self.retry_at = time.monotonic() + RETRY_SECONDS
        if self.warned or self.ending:
            return
        self.warned = True
        self.warn(
            f"tracking at {self.tracker.address} fails: {self.tracker.problem}; the work "
            "continues, and all results are in the store"
        )
