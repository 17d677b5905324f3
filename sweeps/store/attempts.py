"""The ledger of a sweep: each attempt at a trial, the resources it held and how it ended.

    sweeps/<name>/attempts/<id>.json   an attempt, written at its start, after each epoch and at
                                       its end
    sweeps/<name>/drivers/<id>.json    a driver's session, written at least every ALIVE_SECONDS

Only the sweep's one driver writes them, each as a whole. A driver that is killed leaves attempts
without an end; the next driver ends them at its predecessor's last sign of life.
All times are seconds since 1970 by the driver's clock at its start: while it runs, they go on as
its work does, even if the clock is set, or the machine sleeps.
"""

import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from sweeps.store.errors import StoreError
from sweeps.store.store import Store, read_written, write_json
from wsss.basics.files import files_in
from wsss.training.checkpoint_names import epochs_of

ALIVE_SECONDS = 30.0
"""The most time that the ledger lacks after a driver was killed, or its machine lost."""

Reason = Literal["finished", "failed", "preempted", "killed", "interrupted", "hang"]
"""Why an attempt ended. killed: its process died or could not use the store, or its driver was
killed; preempted: its node was lost; interrupted: the sweep was stopped, by a person or its budget.
"""

Unit = Literal["GPU", "CPU"]
"""The device whose hours are counted."""


class Target(Protocol):
    """A piece of work: a trial of a table or of a search, or a chain of a headline."""

    @property
    def run_id(self) -> str:
        """Id of what it finishes, unique among its kind."""

    @property
    def cam_id(self) -> str:
        """Id of the CAM training that it needs."""

    @property
    def name(self) -> str:
        """Its display name."""


class Size(NamedTuple):
    """What one trial holds while it runs."""

    workers: int
    gpus: float
    """Of all its workers together, like cpus."""
    cpus: float

    @property
    def unit(self) -> Unit:
        """The unit of its hours."""
        return "GPU" if self.gpus else "CPU"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Its id."""


class Attempt(_Record):
    """One attempt at a trial."""

    session: str
    """The id of its driver's session."""
    run: str
    cam: str
    title: str
    """The trial's display name."""
    workers: int
    gpus: float
    """Of all workers together, like cpus."""
    cpus: float
    start: float
    from_epoch: int
    """Epoch of the newest checkpoint on the driver's machine at the start."""
    marks: list[tuple[float, int]] = []
    """(time, epoch) at the end of each epoch."""
    end: float | None = None
    why: Reason | None = None
    """None while it runs."""

    def devices(self, unit: Unit) -> float:
        """Return the GPUs or CPUs held."""
        return self.gpus if unit == "GPU" else self.cpus

    def hours(self, unit: Unit, now: float) -> float:
        """Return the GPU- or CPU-hours held until its end, or until now."""
        end = now if self.end is None else self.end
        return hours_between(self.start, end) * self.devices(unit)

    def last_sign(self) -> float:
        """Return the last time at which it shows that its driver was alive."""
        return max([self.start, *(at for at, _ in self.marks), self.end or 0.0])


class Session(_Record):
    """One driver's session."""

    host: str = Field(default_factory=platform.node)
    pid: int = Field(default_factory=os.getpid)
    start: float
    last: float
    """When the driver last signed that it was alive."""
    gpus: float = 0.0
    """What all concurrent trials together may hold, like cpus."""
    cpus: float = 0.0


class Book:
    """The attempts and sessions of a ledger, earliest first."""

    def __init__(self, attempts: Iterable[Attempt] = (), sessions: Iterable[Session] = ()) -> None:
        # Of copied files, each counts once, as it was last written.
        newest_last = sorted(attempts, key=lambda each: (each.end or 0.0, len(each.marks)))
        by_name = {attempt.name: attempt for attempt in newest_last}
        self.attempts = sorted(by_name.values(), key=lambda each: (each.start, each.name))
        self.sessions = {
            s.name: s for s in sorted(sessions, key=lambda each: (each.start, each.last))
        }
        for attempt in self.attempts:
            name, last = attempt.session, attempt.last_sign()
            # A driver's own file may be missing if writing or uploading was cut short.
            known = self.sessions.get(name) or Session(name=name, start=attempt.start, last=last)
            self.sessions[name] = known.model_copy(update={"last": max(known.last, last)})

    @property
    def unit(self) -> Unit:
        """GPU, or CPU if no attempt held a GPU."""
        return "GPU" if any(attempt.gpus for attempt in self.attempts) else "CPU"

    def last_sign(self, attempt: Attempt) -> float:
        """Return when an attempt's driver was last known to be alive."""
        return self.sessions[attempt.session].last

    def hours(self, unit: Unit) -> float:
        """Return the hours of all attempts; of open ones until their driver's last sign of life."""
        return sum(attempt.hours(unit, self.last_sign(attempt)) for attempt in self.attempts)


def read_book(store: Store, sweep_name: str) -> Book:
    """Read a sweep's ledger; empty if there is none. Raises StoreError for an invalid file."""
    folder = store.sweep(sweep_name)
    return Book(_records(folder / "attempts", Attempt), _records(folder / "drivers", Session))


class Ledger:
    """Writes a sweep's ledger while it runs; a Listener and, for its driver, a context manager.

    Neither a full disk nor a bucket that is away ends the sweep: what could not be written is kept
    in memory for the next try. It is uploaded to a bucket with each result, and every
    ALIVE_SECONDS.
    """

    def __init__(
        self, store: Store, sweep_name: str, size: Size, clock: Callable[[], float] | None = None
    ) -> None:
        started = time.time() - time.monotonic()
        clock = clock or (lambda: started + time.monotonic())
        self.store, self.sweep_name, self.size, self.clock = store, sweep_name, size, clock
        self.folder = store.folder(f"sweeps/{sweep_name}")
        self.session = Session(start=clock(), last=clock())
        self.attempts: list[Attempt] = []
        """Of all drivers so far."""
        self.unwritten: dict[Path, Attempt | Session] = {}

    def __enter__(self) -> "Ledger":
        book = self.book()
        self._write(self.session)  # first, as each attempt names its session
        for attempt in book.attempts:
            if attempt.end is None:
                attempt.end = book.last_sign(attempt)
                attempt.why = "finished" if self._is_finished(attempt) else "killed"
                self._write(attempt)
        self.attempts = book.attempts
        return self

    def __exit__(self, *exc: object) -> None:
        for attempt in self.attempts:
            self.ended(attempt.run, "interrupted")
            is_stopped = (attempt.session, attempt.why) == (self.session.name, "interrupted")
            if is_stopped and self._is_finished(attempt):
                attempt.why = "finished"  # its result came after Tune let the trial go
                self._write(attempt)
        self._sign()
        self.folder.push()

    def may_hold(self, trials_at_once: int) -> None:
        """Record how much the sweep may hold at once, from which idle time is computed."""
        self.session.gpus = self.size.gpus * trials_at_once
        self.session.cpus = self.size.cpus * trials_at_once
        self._sign()

    def update(self, trial: Target, *, status: str, record: dict[str, float] | None = None) -> None:
        """Record what happened to a trial, as a Listener."""
        if status != "running":
            reasons: dict[str, Reason] = {"done": "finished", "failed": "failed"}
            self.ended(trial.run_id, reasons.get(status, "interrupted"))
            self._push()  # with the trial's result
        elif record is None:
            self.ended(trial.run_id, "killed")  # unless `ended` was told a better reason
            self._start(trial)
        elif "loss" in record and (attempt := self._running(trial.run_id)):  # not of the scoring
            attempt.marks.append((self.clock(), int(record["epoch"])))
            self._write(attempt)

    def ended(self, key: str, why: Reason) -> None:
        """Record the end of an attempt at a run, or at any run of a training, if one is open."""
        if attempt := self._running(key):
            attempt.end, attempt.why = self.clock(), why
            self._write(attempt)

    def beat(self) -> None:
        """Record from time to time that the driver is alive; may be called as often as you like."""
        if self.clock() - self.session.last >= ALIVE_SECONDS:
            self._sign()
            self._push()
            self._sign()  # a bucket that is away takes its time

    def spent(self) -> float:
        """Return the hours of all attempts of all drivers so far, in this ledger's unit."""
        now, unit = self.clock(), self.size.unit
        return sum(attempt.hours(unit, now) for attempt in self.attempts)

    def book(self) -> Book:
        """Read the ledger from the store."""
        return read_book(self.store, self.sweep_name)

    def _running(self, key: str) -> Attempt | None:
        """Return the open attempt; key: as of `ended`. The runs of a training take turns."""
        return next((a for a in self.attempts if key in (a.run, a.cam) and a.end is None), None)

    def _is_finished(self, attempt: Attempt) -> bool:
        return self.store.run(attempt.run).result() is not None

    def _start(self, trial: Target) -> None:
        checkpoints = self.store.cam(trial.cam_id).checkpoint_names()
        attempt = Attempt(
            session=self.session.name,
            run=trial.run_id,
            cam=trial.cam_id,
            title=trial.name,
            **self.size._asdict(),
            start=self.clock(),
            from_epoch=max(map(epochs_of, checkpoints), default=0),
        )
        self.attempts.append(attempt)
        self._write(attempt)

    def _push(self) -> None:
        """Upload the ledger; if the bucket is unreachable, try again later."""
        with suppress(StoreError):
            self.folder.push()

    def _sign(self) -> None:
        """Record that the driver is alive."""
        self.session.last = self.clock()
        self._write(self.session)

    def _write(self, record: Attempt | Session) -> None:
        """Write a record, and those that could not be written before."""
        kind = "attempts" if isinstance(record, Attempt) else "drivers"
        self.unwritten[self.folder.path / kind / f"{record.name}.json"] = record
        with suppress(OSError, StoreError):
            for path in list(self.unwritten):
                write_json(path, self.unwritten[path].model_dump(mode="json"))
                del self.unwritten[path]


def hours_between(start: float, end: float) -> float:
    """Return the hours between two times; 0 if the clock was set back."""
    return max(0.0, end - start) / 3600


T = TypeVar("T", Attempt, Session)


def _records(folder: Path, kind: type[T]) -> Iterator[T]:
    remedy = "delete the file; its hours are then not counted"
    for path in files_in(folder, "*.json"):
        yield read_written(path, "sweeps run", kind.model_validate, remedy)
