"""The check's output: judgements and tables, as a page and as JSON."""

import inspect
import math
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic_core import to_json

from wsss.basics.errors import ForeseenError
from wsss.basics.files import whole_or_absent
from wsss.basics.printable import first_of, printable
from wsss.gpu_check.bench import Bench

WIDTH = 100
OUT_OF_TIME = "not measured: out of time"
MORE_TIME = "give more --minutes"
MOST_NAMED = 12
"""Skipped parts that a line names; the others are counted."""
BROKEN = (
    "Its results cannot be trusted, and a sweep may fail with the same error.",
    "run the check again; if it fails again, report it with gpu_check.json",
)
"""Meaning and remedy of an error that has no others."""
LEGEND = """\
PASS  as it should be
LOOK  no result is wrong, but time is lost or you have to decide
FAIL  results would be wrong, or a training cannot run: fix it before you train here
INFO  a measurement, nothing to judge
SKIP  not measured, and why"""

OPTIONS = ("device", "out", "weights", "minutes", "small", "preset")
BAD = ("FAIL", "LOOK")
"""Verdicts that are listed at the top."""

Verdict = Literal["PASS", "LOOK", "FAIL", "INFO", "SKIP"]
Part = TypeVar("Part")
"""What a part of a section measures."""


@dataclass(frozen=True)
class Line:
    """One judgement of the page."""

    verdict: Verdict
    what: str
    found: str
    meaning: str = ""
    remedy: str = ""
    """Both are shown unless it is a PASS."""


@dataclass
class Section:
    """One section of the check, and what it found so far."""

    name: str
    """In gpu_check.json."""
    title: str
    share: int
    """Of the time left, relative to the shares of the sections still to come."""
    measure: Callable[[Bench, "Section"], None]
    """The page shows the start of its docstring: what it wants to know."""
    end: float = math.inf
    """When it should end, by time.monotonic(); checked before each of its parts."""
    said: list[Line] = field(default_factory=list)
    tables: list[tuple[Sequence[Any], str]] = field(default_factory=list)
    """Dataclasses of one kind, whose fields are the columns, and a note."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """Its part of gpu_check.json: dataclasses, lists and numbers by name."""
    skipped: dict[str, str] = field(default_factory=dict)
    """What was left out -> why."""

    def say(
        self, verdict: Verdict, what: str, found: str, meaning: str = "", remedy: str = ""
    ) -> None:
        """Add a judgement."""
        self.said.append(Line(verdict, what, found, meaning, remedy))

    def show(self, name: str, records: Sequence[Any], note: str) -> None:
        """Add records to the page and, by name, to the numbers; the list may still grow."""
        self.numbers[name] = records
        self.tables.append((records, note))

    def attempt(
        self, what: str, measure: Callable[[], Part], failed: tuple[str, str] = BROKEN
    ) -> Part | None:
        """Return what is measured; if it raises an error, add a FAIL and return None.

        failed: meaning and remedy of the FAIL.
        """
        try:
            return measure()
        except Exception as error:  # a driver may raise anything; the other parts still run
            found = str(error) if isinstance(error, ForeseenError) else first_line(error)
            self.say("FAIL", what, found, *failed)
            return None

    def part(
        self, what: str, measure: Callable[[], Part], failed: tuple[str, str] = BROKEN
    ) -> Part | None:
        """As `attempt`, for which there must be time left."""
        return None if self.is_late(what) else self.attempt(what, measure, failed)

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.end

    def is_late(self, what: str) -> bool:
        """Return whether no time is left for a part, which is then noted as skipped."""
        if is_over := self.is_over:
            self.skipped[what] = OUT_OF_TIME
        return is_over

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


def write(bench: Bench, sections: Sequence[Section], progress: str, seconds: float) -> None:
    """Write gpu_check.txt and gpu_check.json with the sections done so far."""
    found = {
        "options": {name: getattr(bench, name) for name in OPTIONS},
        "seconds": round(seconds, 1),
        "lines": {one.name: one.lines() for one in sections},
        "sections": {one.name: one.numbers | {"skipped": one.skipped} for one in sections},
    }
    numbers = to_json(found, indent=1, inf_nan_mode="strings", fallback=str)
    page = render(str(bench.device), f"{progress}, {seconds / 60:.1f} minutes", sections)
    for name, content in {"gpu_check.json": numbers, "gpu_check.txt": page.encode()}.items():
        with whole_or_absent(bench.out / name) as partial:
            partial.write_bytes(content)


def render(device: str, progress: str, sections: Sequence[Section]) -> str:
    """Return the page. progress: how far the check has come."""
    lines = [(n, line) for n, one in enumerate(sections, start=1) for line in one.lines()]
    counted = Counter(line.verdict for _, line in lines)
    judged = ", ".join(f"{counted[v]} {v}" for v in ("FAIL", "LOOK", "PASS", "SKIP"))
    attention = "".join(
        "\n  " + textwrap.shorten(f"{o.verdict}  section {n}, {o.what}: {o.found}", WIDTH - 2)
        for n, o in lines
        if o.verdict in BAD
    )
    parts = [
        f"Is everything correct and fast on this device? ({device})",
        f"{judged}; {progress}",
        LEGEND,
        f"To do:{attention}" if attention else "Nothing to do.",
        *(section_text(number, section) for number, section in enumerate(sections, start=1)),
    ]
    return printable("\n\n".join(parts) + "\n")


def section_text(number: int, section: Section) -> str:
    """Return a section's title, question, judgements and tables."""
    title = f"{number}. {section.title}"
    asks = (inspect.getdoc(section.measure) or "").partition("\n\n")[0]
    texts = [title, "-" * len(title), textwrap.fill(asks, WIDTH)]
    texts += map(line_text, section.lines())
    texts += [table_text(records, note) for records, note in section.tables if records]
    return "\n".join(texts)


def line_text(line: Line) -> str:
    """Return a judgement, what it means, and what to do about it."""
    parts = [(f"{line.verdict}  ", f"{line.what}: {line.found}")]
    if line.verdict != "PASS":
        parts += [("      ", line.meaning), ("      -> ", line.remedy)]
    return "\n".join(_wrapped(start, text) for start, text in parts if text)


def table_text(records: Sequence[Any], note: str) -> str:
    """Return the records' fields in aligned columns, under a note."""
    header = [name.replace("_", " ") for name in vars(records[0])]
    lines = [header, *(list(map(_shown, vars(record).values())) for record in records)]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    rows = (
        "  ".join(["    ", name.ljust(first), *map(str.rjust, values, others)])
        for name, *values in lines
    )
    return "\n".join(["", _wrapped("      ", note), *rows])


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return "-" if value is None else str(value)


def _wrapped(start: str, text: str) -> str:
    follow = " " * len(start)
    return textwrap.fill(
        text, WIDTH, initial_indent=start, subsequent_indent=follow, break_long_words=False
    )
