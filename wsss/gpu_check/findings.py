"""What a section of the check hands on: judged lines, a table of what was measured, and time."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

Verdict = Literal["PASS", "LOOK", "FAIL", "INFO", "SKIP"]
OUT_OF_TIME = "not measured: out of time"
MORE_TIME = "give more --minutes"


@dataclass(frozen=True)
class Options:
    """What the check runs on, and how long."""

    device: torch.device
    out: Path
    data: Path | None = None
    """In VOC layout; None: pictures are drawn."""
    weights: Path | None = None
    """State dict of a backbone; None: random weights."""
    minutes: float = 8.0
    small: bool = False
    """Small crops and batches, for a CPU."""
    preset: str = "paper"
    """Of the sections that measure speed."""

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is checked, rather than the check itself on a CPU."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Line:
    """One judgement of the page."""

    verdict: Verdict
    what: str
    found: str
    meaning: str = ""
    remedy: str = ""
    """What to do about it; of LOOK and FAIL."""


@dataclass(frozen=True)
class Table:
    """Measured numbers, as text, and what the columns mean."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


class Section(Protocol):
    """A dataclass of what a section measured, which can say what it means."""

    def lines(self) -> list[Line]:
        """Return the judgements."""

    def tables(self) -> list[Table]:
        """Return the numbers behind them."""


@dataclass(frozen=True)
class Failed:
    """A section that ended by an error nobody foresaw."""

    error: str

    def lines(self) -> list[Line]:
        """Return one FAIL."""
        return [
            Line(
                "FAIL", "this section", f"ended by an error: {self.error}",
                "Nothing of it can be trusted, and a sweep may meet the same error.",
                "run the check again; if it comes again, report it with gpu_check.json",
            )
        ]  # fmt: skip

    def tables(self) -> list[Table]:
        """Return none."""
        return []


@dataclass
class Skipped:
    """What a section left out, and why."""

    reasons: dict[str, str] = field(default_factory=dict)
    """What -> why."""

    def lines(self) -> list[Line]:
        """Return a SKIP a reason, which names everything that was left out for it."""
        groups: dict[str, list[str]] = {}
        for what, why in self.reasons.items():
            groups.setdefault(why, []).append(what)
        return [
            Line("SKIP", _named(names), why, remedy=MORE_TIME if why == OUT_OF_TIME else "")
            for why, names in groups.items()
        ]


def _named(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Deadline:
    """A point in time by which a section is to end; it looks before each of its parts."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, negative once it has passed."""
        return self.end - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left() <= 0


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of its message."""
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
