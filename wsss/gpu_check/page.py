"""The check's output: judgements and tables, as a page and as JSON."""

import math
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from wsss.basics.files import whole_or_absent, write_json
from wsss.basics.printable import first_of, printable

WIDTH = 100
OUT_OF_TIME = "not measured: out of time"
MORE_TIME = "give more --minutes"
MOST_NAMED = 12
"""Skipped parts that a line names; the others are counted."""
TITLES = {
    "machine": ("The machine", "Where all numbers below were measured."),
    "equality": (
        "Equality",
        "One step of every training, and every inference, on the CPU and on the device in full "
        "fp32: the same losses, gradients and maps? This decides whether results can be trusted.",
    ),
    "speed": ("Speed of a step", "Training at full size, from batches in memory."),
    "loading": (
        "Loader and step",
        "CPU processes decode and crop pictures. Do they keep up with the fastest step?",
    ),
    "inference": ("Inference", "Multi-scale CAMs, from which pseudo-labels are made."),
    "real_training": (
        "A short real training",
        "From files to a score, with few pictures and few steps.",
    ),
    "projection": (
        "Hours of the paper's tables",
        "Extrapolated from sections 3 to 5; none of it has been run.",
    ),
}
"""Section -> its title and what it asks, in the page's order."""
LEGEND = """\
PASS  as it should be
LOOK  no result is wrong, but time is lost or you have to decide
FAIL  results would be wrong, or a training cannot run: fix it before you train here
INFO  a measurement, nothing to judge
SKIP  not measured, and why"""

Verdict = Literal["PASS", "LOOK", "FAIL", "INFO", "SKIP"]


@dataclass(frozen=True)
class Options:
    """What the check runs on, and for how long."""

    device: torch.device
    out: Path
    data: Path | None = None
    """In VOC layout; None: drawn pictures."""
    weights: Path | None = None
    """State dict of a backbone; None: random weights."""
    minutes: float = 8.0
    small: bool = False
    """Small crops and batches, for a CPU."""
    preset: str = "paper"
    """For the sections that measure speed."""

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is checked, rather than the check itself on a CPU."""
        return self.device.type == "cuda"


class Deadline:
    """When a section should end; it is checked before each of the section's parts."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, negative once it has passed."""
        return self.end - time.monotonic()

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left() <= 0


class Line(NamedTuple):
    """One judgement of the page."""

    verdict: Verdict
    what: str
    found: str
    meaning: str = ""
    remedy: str = ""
    """What to do about LOOK and FAIL."""


class Table(NamedTuple):
    """Measured numbers, as text, with a note."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


@dataclass
class Section:
    """What one section of the check found so far."""

    deadline: Deadline
    said: list[Line] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    """Its part of gpu_check.json: dataclasses, lists and numbers by name."""
    skipped: dict[str, str] = field(default_factory=dict)
    """What was left out -> why."""

    def say(
        self, verdict: Verdict, what: str, found: str, meaning: str = "", remedy: str = ""
    ) -> None:
        """Add a judgement."""
        self.said.append(Line(verdict, what, found, meaning, remedy))

    def is_late(self, what: str) -> bool:
        """Return whether no time is left for a part, which is then noted as skipped."""
        if self.deadline.passed:
            self.skipped[what] = OUT_OF_TIME
        return self.deadline.passed

    def lines(self) -> list[Line]:
        """Return the judgements, and for each reason a SKIP with everything left out."""
        found = list(self.said)
        for why in dict.fromkeys(self.skipped.values()):
            names = [what for what, reason in self.skipped.items() if reason == why]
            remedy = MORE_TIME if why == OUT_OF_TIME else ""
            found.append(Line("SKIP", first_of(names, MOST_NAMED), why, "", remedy))
        return found


def first_line(error: BaseException) -> str:
    """Return an error's kind and the first line of its message."""
    text = (str(error).strip().splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def write(options: Options, sections: dict[str, Section], seconds: float) -> None:
    """Write gpu_check.txt and gpu_check.json, with the sections done so far."""
    found = {
        "options": options,
        "seconds": round(seconds, 1),
        "lines": {n: [line._asdict() for line in one.lines()] for n, one in sections.items()},
        "sections": {n: one.numbers | {"skipped": one.skipped} for n, one in sections.items()},
    }
    write_json(options.out / "gpu_check.json", plain(found))
    with whole_or_absent(options.out / "gpu_check.txt") as partial:
        partial.write_text(render(options, sections, seconds), encoding="utf-8")


def plain(value: Any) -> Any:
    """Return dataclasses as dictionaries, and what JSON does not have (paths, nan) as text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def render(options: Options, sections: dict[str, Section], seconds: float) -> str:
    """Return the page."""
    counted = Counter(line.verdict for one in sections.values() for line in one.lines())
    judged = ", ".join(f"{counted[v]} {v}" for v in ("FAIL", "LOOK", "PASS", "SKIP"))
    numbers = {name: number for number, name in enumerate(TITLES, start=1)}
    attention = [
        "  "
        + textwrap.shorten(
            f"{line.verdict}  section {numbers[name]}, {line.what}: {line.found}", WIDTH - 2
        )
        for name, one in sections.items()
        for line in one.lines()
        if line.verdict in ("FAIL", "LOOK")
    ]
    parts = [
        f"Is everything correct and fast on this device? ({options.device})",
        f"{judged}; {len(sections)} of {len(TITLES)} sections, {seconds / 60:.1f} minutes",
        LEGEND,
        "\n".join(["To do:", *attention]) if attention else "Nothing to do.",
    ]
    for name, section in sections.items():
        title = f"{numbers[name]}. {TITLES[name][0]}"
        texts = [title, "-" * len(title), textwrap.fill(TITLES[name][1], WIDTH)]
        told: set[str] = set()
        for line in section.lines():
            texts.append(line_text(line._replace(meaning="") if line.meaning in told else line))
            told.add(line.meaning)
        parts.append("\n".join([*texts, *(table_text(t) for t in section.tables if t.rows)]))
    return printable("\n\n".join(parts) + "\n")


def line_text(line: Line) -> str:
    """Return a judgement, what it means, and what to do about it."""
    texts = [_wrapped(f"{line.verdict}  ", f"{line.what}: {line.found}")]
    if line.meaning:
        texts.append(_wrapped("      ", line.meaning))
    if line.remedy and line.verdict != "PASS":
        texts.append(_wrapped("      -> ", line.remedy))
    return "\n".join(texts)


def table_text(table: Table) -> str:
    """Return aligned columns under their note."""
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    rows = [
        "      " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in (table.columns, *table.rows)
    ]
    note = [_wrapped("      ", table.note)] if table.note else []
    return "\n".join(["", *note, *rows])


def _wrapped(start: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
    )
