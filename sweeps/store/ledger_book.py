"""What a sweep's ledger says: attempts at trials and sessions of its drivers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Attempt:
    """One attempt at a trial."""

    name: str
    session: str
    run: str
    cam: str
    title: str
    workers: int
    gpus: float
    """Of all workers together, as cpus."""
    cpus: float
    start: float
    """Seconds since 1970, as all times here."""
    from_epoch: int
    """Of the newest checkpoint here when it began."""
    marks: list[tuple[float, int]] = field(default_factory=list)
    """(time, epoch) at the end of each epoch."""
    end: float | None = None
    why: str | None = None
    """One of REASONS; None: not ended."""

    def devices(self, unit: str) -> float:
        """Return the GPUs or CPUs held."""
        return self.gpus if unit == "GPU" else self.cpus

    def hours(self, unit: str, now: float | None = None) -> float:
        """Return the GPU- or CPU-hours held until its end, or until now."""
        end = self.end if self.end is not None else now
        return 0.0 if end is None else hours_between(self.start, end) * self.devices(unit)


@dataclass
class Session:
    """One driver's time."""

    name: str
    start: float
    last: float
    gpus: float = 0.0
    """What all trials at once may hold, as cpus."""
    cpus: float = 0.0


@dataclass
class Book:
    """The attempts and sessions of a ledger, in the order of its lines."""

    attempts: list[Attempt] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    num_broken: int = 0
    """Lines which are not JSON: what a killed driver had written of them."""

    @property
    def unit(self) -> str:
        """GPU, or CPU if no attempt held a GPU."""
        return "GPU" if any(attempt.gpus for attempt in self.attempts) else "CPU"

    def open_attempts(self) -> list[Attempt]:
        """Return the attempts that have not ended."""
        return [attempt for attempt in self.attempts if attempt.end is None]

    def last_sign(self, session: str) -> float:
        """Return when a driver was last known to be alive."""
        return self.sessions[session].last

    def hours(self, unit: str) -> float:
        """Return the hours of all attempts; of open ones until their driver's last line."""
        return sum(a.hours(unit, self.last_sign(a.session)) for a in self.attempts)


def read_book(path: Path) -> Book:
    """Read a ledger; empty if there is none."""
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    lines, num_broken = [], 0
    for text in content.splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            num_broken += 1
    book = make_book(lines)
    book.num_broken = num_broken
    return book


def make_book(lines: Sequence[dict[str, Any]]) -> Book:
    """Put together what the lines of a ledger say."""
    book, attempts = Book(), dict[str, Attempt]()
    for line in lines:
        event, at, name = line["event"], float(line["at"]), line["session"]
        session = book.sessions.setdefault(name, Session(name, at, at))
        session.last = max(session.last, at)
        if event == "room":
            session.gpus, session.cpus = line["gpus"], line["cpus"]
        elif event == "start":
            attempt = Attempt(
                line["attempt"], name, line["run"], line["cam"], line["name"], line["workers"],
                line["gpus"], line["cpus"], at, line["epoch"],
            )  # fmt: skip
            attempts[attempt.name] = attempt
            book.attempts.append(attempt)
        elif event in ("mark", "end") and line["attempt"] in attempts:
            attempt = attempts[line["attempt"]]
            if event == "mark":
                attempt.marks.append((at, line["epoch"]))
            else:
                attempt.end, attempt.why = attempt.end or at, line["why"]  # a later why is better
    return book


def hours_between(start: float, end: float) -> float:
    """Return hours; none if the clock was set back."""
    return max(0.0, end - start) / 3600
