"""The page of the check: text for a person, and the same numbers as JSON for a program."""

import math
import textwrap
from collections import Counter
from dataclasses import asdict, is_dataclass, replace
from typing import Any

from wsss.gpu_check.findings import Line, Options, Section, Table
from wsss.json_files import write_json
from wsss.printable import printable

WIDTH = 100
TITLES = {
    "machine": ("The machine", "What all numbers below belong to."),
    "equality": (
        "Equality",
        "One step of every training, and every inference, on the CPU and on the device in full "
        "fp32: the same losses, gradients and maps? This decides whether results can be trusted.",
    ),
    "speed": ("Speed of a step", "Training at full size, from batches in memory."),
    "loading": (
        "Loader against step",
        "Pictures are decoded and cut by CPU processes. Do they keep up with the fastest step?",
    ),
    "inference": ("Inference", "Multi-scale CAMs, which make the pseudo-labels."),
    "real_training": (
        "A short training for real",
        "From files to a score, on few pictures and for few steps.",
    ),
    "projection": (
        "Hours of the paper's tables",
        "Extrapolated from sections 3 to 5; nothing of it has been run.",
    ),
}
"""Section -> its title and what it asks, in the page's order."""
LEGEND = """\
PASS  as it should be
LOOK  no result is wrong, but time is lost or a decision is yours
FAIL  results would be wrong, or a training cannot run: mend it before you train here
INFO  a measurement, nothing to judge
SKIP  not measured, and why"""


def exit_code(sections: dict[str, Section]) -> int:
    """Return 1 if any line says FAIL, else 0."""
    return int(any(line.verdict == "FAIL" for one in sections.values() for line in one.lines()))


def write(options: Options, sections: dict[str, Section], seconds: float) -> None:
    """Write gpu_check.txt and gpu_check.json, with the sections done so far."""
    lines = {name: [asdict(line) for line in one.lines()] for name, one in sections.items()}
    found: dict[str, Any] = {
        "options": plain(options), "seconds": round(seconds, 1), "lines": lines,
        "sections": {name: plain(one) for name, one in sections.items()},
    }  # fmt: skip
    write_json(options.out / "gpu_check.json", found)
    path = options.out / "gpu_check.txt"
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(render(options, sections, seconds), encoding="utf-8")
    partial.replace(path)


def plain(value: Any) -> Any:
    """Return dataclasses as dictionaries, and what JSON lacks (paths, nan) as text."""
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
    parts = [
        f"Is all right and fast on this device? ({options.device})",
        f"{judged}; {len(sections)} of {len(TITLES)} sections, {seconds / 60:.1f} minutes",
        LEGEND,
    ]
    attention = [
        _heading_line(number, line)
        for number, name in enumerate(TITLES, start=1)
        if name in sections
        for line in sections[name].lines()
        if line.verdict in ("FAIL", "LOOK")
    ]
    parts.append("\n".join(["To see to:", *attention]) if attention else "Nothing to see to.")
    for number, (name, (title, question)) in enumerate(TITLES.items(), start=1):
        if name in sections:
            parts.append(section_text(f"{number}. {title}", question, sections[name]))
    return printable("\n\n".join(parts) + "\n")


def section_text(title: str, question: str, section: Section) -> str:
    """Return one section: its question, judgements and numbers."""
    parts = [f"{title}\n{'-' * len(title)}\n{textwrap.fill(question, WIDTH)}"]
    told: set[str] = set()
    for line in section.lines():
        parts.append(line_text(replace(line, meaning="") if line.meaning in told else line))
        told.add(line.meaning)
    parts += [table_text(table) for table in section.tables() if table.rows]
    return "\n".join(parts)


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
    cells = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    rows = [
        "      " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                             for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]  # fmt: skip
    note = [_wrapped("      ", table.note)] if table.note else []
    return "\n".join(["", *note, *rows])


def _heading_line(number: int, line: Line) -> str:
    text = f"{line.verdict}  section {number}, {line.what}: {line.found}"
    return f"  {textwrap.shorten(text, WIDTH - 2)}"


def _wrapped(start: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * len(start),
        break_long_words=False,
    )  # fmt: skip
