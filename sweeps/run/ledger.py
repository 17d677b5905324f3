"""The ledger of a sweep: each attempt at a trial, what it held and how it ended.

`sweeps/<name>/ledger.jsonl` in the store is only ever appended to, by the sweep's one driver, as
things happen. Its lines are {event, at, session, ...}, `at` in seconds since 1970 by its clock:

    session  a driver began          host, pid
    room     how many trials fit     gpus, cpus (of all that may run at once)
    start    an attempt began        attempt, run, cam, name, workers, gpus, cpus, epoch (kept then)
    mark     an epoch was finished   attempt, epoch
    alive    the driver was alive    at least every ALIVE_SECONDS, if it is
    end      an attempt ended        attempt, why
    close    the driver ended

A driver that is killed leaves attempts open; the next one ends them at its last line.
"""

import json
import os
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sweeps.plan.trials import Trial
from sweeps.store.ledger_book import Attempt, Book, read_book
from sweeps.store.store import Store, StoreError
from wsss.training.checkpoint_names import epochs_of

ALIVE_SECONDS = 30.0
"""So much time at most is missing from the ledger after a driver was killed."""

EPOCH_KEY = "loss"
"""Only the records of a finished epoch have it, those of the scoring after it have not."""

PUSH_SECONDS = 60.0
"""So much is missing at most from the ledger in a bucket after the driver's machine was lost."""

FILE_NAME = "ledger.jsonl"

REASONS = ("finished", "failed", "preempted", "killed", "interrupted", "hang")
"""Why attempts end. killed: its process died, or its driver was killed; preempted: its node went
away; interrupted: the sweep was stopped, by a person or by its budget."""


class Size(NamedTuple):
    """What one trial holds while it runs."""

    workers: int
    gpus: float
    """Of all its workers together."""
    cpus: float

    @property
    def unit(self) -> str:
        """What its hours are counted in."""
        return "GPU" if self.gpus else "CPU"


def ledger_path(store: Store, sweep_name: str) -> Path:
    """Return the file of a sweep's ledger."""
    return store.sweep(sweep_name) / FILE_NAME


class Ledger:
    """Writes a sweep's ledger while it runs; a Listener. Use as a context manager, as the driver.

    A disk that is full does not end the sweep: lines wait in memory for the next chance, and
    `problem` says why. Into a bucket it goes with each result, and every PUSH_SECONDS.
    """

    def __init__(
        self, store: Store, sweep_name: str, size: Size, clock: Callable[[], float] = time.time
    ) -> None:
        self.store, self.sweep_name, self.size, self.clock = store, sweep_name, size, clock
        self.path = ledger_path(store, sweep_name)
        self.session = uuid.uuid4().hex[:8]
        self.open: dict[str, Attempt] = {}
        """Run id -> its attempt at work."""
        self.stopped: dict[str, Attempt] = {}
        """Run id -> its attempt that was interrupted."""
        self.closed_hours = 0.0
        self.waiting: list[dict[str, Any]] = []
        self.last_at = 0.0
        self.pushed_at = clock()
        self.problem: OSError | StoreError | None = None

    def __enter__(self) -> "Ledger":
        book = read_book(self.path)
        for attempt in book.open_attempts():
            at = book.last_sign(attempt.session)
            why = self._unless_finished(attempt.run, "killed")
            line = {"at": at, "session": attempt.session, "attempt": attempt.name, "why": why}
            self.waiting.append({"event": "end"} | line)
            attempt.end, attempt.why = at, why
        self.closed_hours = book.hours(self.size.unit)
        self._add("session", host=platform.node(), pid=os.getpid())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for run_id in list(self.open):
            self.ended(run_id, "interrupted")
        for attempt in self.stopped.values():  # a result may come after Tune has let a trial go
            if self._unless_finished(attempt.run, "interrupted") == "finished":
                self._add("end", attempt=attempt.name, why="finished")
        self._add("close")
        self.store.push_sweep(self.sweep_name)

    def room(self, trials_at_once: int) -> None:
        """Note how much the sweep may hold at once, against which idle time is counted."""
        self._add(
            "room", gpus=self.size.gpus * trials_at_once, cpus=self.size.cpus * trials_at_once
        )

    def update(self, trial: Trial, *, status: str, record: dict[str, float] | None = None) -> None:
        """Note what happened to a trial, as run.Listener says."""
        run_id = trial.run_id
        if status == "running" and record is None:
            self.ended(run_id, "killed")  # unless `ended` has said better why it was
            self._start(trial)
            return
        attempt = self.open.get(run_id)
        if attempt and status == "running" and record and EPOCH_KEY in record:
            epoch = int(record["epoch"])
            attempt.marks.append((self.clock(), epoch))
            self._add("mark", attempt=attempt.name, epoch=epoch)
        if status != "running":
            why = {"done": "finished", "failed": "failed"}.get(status, "interrupted")
            self.ended(run_id, why)
            self._push()  # as the trial's result

    def ended(self, run_id: str, why: str) -> None:
        """Note that an attempt has ended; nothing if none is open.

        why: one of REASONS.
        """
        attempt = self.open.pop(run_id, None)
        if attempt is None:
            return
        attempt.end, attempt.why = self.clock(), why
        self.closed_hours += attempt.hours(self.size.unit)
        if why == "interrupted":
            self.stopped[run_id] = attempt
        self._add("end", attempt=attempt.name, why=why)

    def beat(self) -> None:
        """Note from time to time that the driver is alive; call it as often as you like."""
        if self.clock() - self.last_at >= ALIVE_SECONDS:
            self._add("alive")
        if self.clock() - self.pushed_at >= PUSH_SECONDS:
            self._push()

    def spent(self) -> float:
        """Return the hours of all attempts so far, of all drivers, in the unit of this one."""
        now, unit = self.clock(), self.size.unit
        return self.closed_hours + sum(a.hours(unit, now) for a in self.open.values())

    def book(self) -> Book:
        """Read what is in the file."""
        return read_book(self.path)

    def _unless_finished(self, run_id: str, why: str) -> str:
        return "finished" if self.store.run(run_id).metrics() else why

    def _start(self, trial: Trial) -> None:
        checkpoints = self.store.cam(trial.cam_id).checkpoints.glob("epoch_*.pt")
        kept = max(map(epochs_of, checkpoints), default=0)
        attempt = Attempt(
            name=uuid.uuid4().hex[:8], session=self.session, run=trial.run_id, cam=trial.cam_id,
            title=trial.name, workers=self.size.workers, gpus=self.size.gpus, cpus=self.size.cpus,
            start=self.clock(), from_epoch=kept,
        )  # fmt: skip
        self.open[trial.run_id] = attempt
        self._add(
            "start", attempt=attempt.name, run=trial.run_id, cam=trial.cam_id, name=trial.name,
            **self.size._asdict(), epoch=kept,
        )  # fmt: skip

    def _push(self) -> None:
        """Upload the ledger; a bucket that is away is tried again later."""
        try:
            self.store.push_sweep(self.sweep_name)
        except StoreError as error:
            self.problem = error
        self.pushed_at = self.clock()

    def _add(self, event: str, **more: Any) -> None:
        """Append a line, with those that could not be written before, and make it last."""
        self.last_at = self.clock()
        line = {"event": event, "at": round(self.last_at, 3), "session": self.session}
        self.waiting.append(line | more)
        try:
            append_lines(self.path, self.waiting)
        except OSError as error:
            self.problem = error
        else:
            self.waiting, self.problem = [], None


def append_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Append lines of JSON; on disk when this returns. All or none. Raises OSError.

    What a killed process left of a line keeps a line of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            content = content if file.read(1) == b"\n" else b"\n" + content
        try:
            while content:
                content = content[file.write(content) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
