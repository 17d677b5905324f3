"""Hands out the work, follows its progress, and decides what to do after a fault; without Ray.

A `Source` provides the targets: the missing trials of a table, the points that a search draws, the
chains of a headline. A `Dispatch` hands them out, to Tune or to a plain loop, tells the listeners
what happens, and acts on `faults.decide`. A target whose attempt broke off is handed out again; for
Tune, each attempt is a trial of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

from sweeps.run.faults import MAX_RESTARTS, Break, Decision, decide, num_alike
from sweeps.stages.guard import num_hangs
from sweeps.store.attempts import Reason, Target
from sweeps.store.errors import StoreError
from sweeps.store.failures import ErrorNote, take_note

TargetStatus = Literal["running", "done", "failed", "started"]
"""started: ended half-way; it resumes at the next start."""

Numbers = dict[str, Any]
"""What a trial reports: flat numbers, including `epoch`, and words under WARNINGS."""
WARNINGS = ("warning", "dead_maps")
"""Of a training at the label prior, and of one whose maps are dead."""

ORDERLY = (
    "{why}: starting no more {noun}s. Those running, if any, save a checkpoint and end; another "
    "signal stops all at once, and work since the last checkpoint is repeated."
)

T = TypeVar("T", bound=Target)


class Listener(Protocol):
    """Is told what happens to targets."""

    def update(self, trial: Any, *, status: str, record: Numbers | None = None) -> None:
        """trial: a target, or the part of one that is at work; record: the last numbers."""


class End(NamedTuple):
    """A target's result."""

    status: TargetStatus
    why: str = ""
    """What to say of it, in a line: the cause of a failure, or a figure."""


class Event(NamedTuple):
    """What a listener is told."""

    trial: Any
    """A target, or the part of one that listeners know."""
    status: TargetStatus
    record: Numbers | None
    why: str = ""
    """The cause of a failure, if no one has said it yet."""


class Source(ABC, Generic[T]):
    """Provides targets, by default a fixed list, and records their results."""

    noun: ClassVar[str] = "trial"
    """What a target is called."""

    def __init__(self, waiting: Iterable[T] = ()) -> None:
        self.waiting = list(waiting)

    def next(self) -> T | None:
        """Return the next target; None if there is none, at least until another one ends."""
        return self.waiting.pop(0) if self.waiting else None

    def events(self, target: T, status: TargetStatus, record: Numbers | None) -> Iterable[Event]:
        """Return what listeners are told of a target; by default just this."""
        yield Event(target, status, record)

    @abstractmethod
    def folder(self, target: T) -> Path:
        """Return where its processes leave notes for the driver."""

    def reported(self, target: T, record: Numbers) -> bool:
        """Record what a target reported; return whether to end it now."""
        return False

    @abstractmethod
    def ended(self, target: T) -> End:
        """Return the result of a target whose process ended by itself or was told to end."""

    @abstractmethod
    def gave_up(self, target: T, note: ErrorNote) -> None:
        """Record that it failed for good."""


class Runner(Protocol[T]):
    """How the targets of a source are run."""

    @property
    def source(self) -> Source[T]:
        """Provides the targets."""

    def run(self, dispatch: "Dispatch[T]", at_once: int) -> None:
        """Run what is handed out, `at_once` at a time, until there is no more or it must stop."""


class CommonError(NamedTuple):
    """The error that several trials met."""

    note: ErrorNote
    traceback_file: Path


class Dispatch(Generic[T]):
    """The running targets, and the decisions about them.

    why_end: returns why nothing more may start, a signal or a spent budget; None if it may.
    say: prints a line. note_end: is told (cam id, why) of attempts whose end no listener is told
    of, for the ledger.
    """

    def __init__(
        self,
        source: Source[T],
        listeners: list[Listener],
        why_end: Callable[[], str | None],
        say: Callable[[str], object],
        note_end: Callable[[str, Reason], None] | None = None,
    ) -> None:
        self.source, self.listeners, self.why_end = source, listeners, why_end
        self.say, self.note_end = say, note_end or (lambda cam_id, why: None)
        self.again: list[T] = []
        """Targets whose attempt broke off; they are handed out before any other."""
        self.out: dict[str, T] = {}
        """Run id -> target that was handed out and has not ended."""
        self.running: set[str] = set()
        """Run ids of targets whose process has started."""
        self.last: dict[str, Numbers] = {}
        self.warned: dict[str, set[str]] = {}
        """Run id -> kinds of warnings that still hold."""
        self.hangs: dict[Path, int] = {}
        """Folder of a target's notes -> number of hangs known there."""
        self.breaks: tuple[Break, ...] = ()
        self.common_error: CommonError | None = None
        self.is_end_said = False

    def next(self) -> T | None:
        """Return the next target; None if none may start now. If none is `out`, all is done."""
        if self.is_ending():
            return None
        target = self.again.pop(0) if self.again else self.source.next()
        if target is not None:
            self.out[target.run_id] = target
        return target

    def is_ending(self) -> bool:
        """Whether nothing may start any more, and what runs is to save what it has and end.

        Says why, the first time.
        """
        if self.common_error is not None:
            return True
        why = self.why_end()
        if why and not self.is_end_said:
            self.is_end_said = True
            self.say(ORDERLY.format(why=why, noun=self.source.noun))
        return why is not None

    def has_ended(self) -> bool:
        """Whether nothing may start any more, and nothing runs."""
        return self.is_ending() and not self.running

    def begun(self, run_id: str) -> None:
        """A target's process has started."""
        self._tell(self.out[run_id], "running")

    def reported(self, run_id: str, record: Numbers) -> bool:
        """A target has reported; return whether to end it."""
        target = self.out[run_id]
        self.last[run_id] = record
        is_over = self.source.reported(target, record)
        self._tell(target, "running", record)
        self._warn(target, record)
        return is_over

    def _warn(self, target: T, record: Numbers) -> None:
        """Say a warning of a training when it comes up, and again once an epoch was without it."""
        found = {kind: record[kind] for kind in WARNINGS if kind in record}
        known = self.warned.get(target.run_id, set())
        for kind, warning in found.items():
            if kind not in known:
                self.say(f"warning: {target.name}: {warning}")
        is_epoch = "collapsed" in record
        self.warned[target.run_id] = set(found) if is_epoch else known | found.keys()

    def ended(self, run_id: str) -> None:
        """A target's process has ended by itself, or as it was told to."""
        if (target := self.out.pop(run_id, None)) is None:
            return  # known already
        try:
            status, why = self.source.ended(target)
        except StoreError as error:  # a later start looks for its results again
            status, why = "started", str(error)
        if why:
            self.say(f"{target.name}: {why}")
        self._tell(target, status, self.last.get(run_id))

    def broke(self, broke: Break) -> None:
        """A target's process ended unexpectedly.

        broke: what Ray says of it; used if the process left no note of an error.
        """
        if (target := self.out.pop(broke.run_id, None)) is not None:  # else known already
            self._decide(target, self._why(target, broke))

    def raised(self, run_id: str, note: ErrorNote) -> None:
        """The attempt at a target met an error in this process."""
        self._decide(self.out.pop(run_id), Break(run_id, "failed", note))

    def _decide(self, target: T, broke: Break) -> None:
        self.running.discard(target.run_id)
        self.note_end(target.cam_id, broke.cause)
        if self.common_error is not None:  # all are being stopped
            return
        decision = decide(self.breaks, broke)
        self.breaks = (*self.breaks, broke)
        if decision is Decision.STOP_ALL:
            path = self.source.folder(target) / "traceback.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(broke.note.traceback, encoding="utf-8")
            self.common_error = CommonError(broke.note, path)
        elif decision is Decision.GIVE_UP:
            try:
                self.source.gave_up(target, broke.note)
            except StoreError as error:  # the failure is on this machine alone; the others continue
                self.say(f"{target.name}: {error}")
            self.say(f"{target.name}: {broke.note.kind}: {broke.note.message}")
            self._tell(target, "failed")
        else:
            self._again(target, broke, decision)

    def _again(self, target: T, broke: Break, decision: Decision) -> None:
        """Queue a target again, unless nothing may start any more."""
        if self.is_ending():
            self._tell(target, "started")
            then = "it resumes at the next start"
        elif decision is Decision.GO_ON:
            self.again.append(target)
            then = "it resumes on another node"
        else:
            self.again.append(target)
            count = num_alike(self.breaks, broke)
            then = f"restart {count} of {MAX_RESTARTS}, from its last checkpoint"
        self.say(f"{target.name}: {broke.words}; {then}")

    def _why(self, target: T, broke: Break) -> Break:
        """Find out why a target's process ended; its note is removed."""
        if broke.cause == "preempted":
            return broke
        if note := take_note(self.source.folder(target)):
            return Break(target.run_id, "failed", note)
        if hung := self._hung(target):
            return Break(target.run_id, "hang", replace(broke.note, kind="hung", message=hung))
        return broke

    def _hung(self, target: T) -> str:
        """Return what a watchdog has done since the last call; "" if nothing."""
        folder = self.source.folder(target)
        now = num_hangs(folder)
        known, self.hangs[folder] = self.hangs.get(folder, now), now
        if now <= known:  # fewer: somebody has deleted the file
            return ""
        return f"made no progress; its process was ended (see {folder}/stack.txt)"

    def _tell(self, target: T, status: TargetStatus, record: Numbers | None = None) -> None:
        (self.running.add if status == "running" else self.running.discard)(target.run_id)
        for event in self.source.events(target, status, record):
            for listener in self.listeners:
                listener.update(event.trial, status=event.status, record=event.record)
            if event.why:
                self.say(f"{event.trial.name}: {event.why}")
        # Ray Train may restart a worker that hung without telling Tune.
        if status == "running" and (hung := self._hung(target)):
            self.say(f"{target.name}: {hung}")
