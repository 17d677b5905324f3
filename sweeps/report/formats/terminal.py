"""A report in a terminal: the same words, tables as wide as they need to be."""

import textwrap
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text as RichText

from sweeps.report.document import (
    Badge,
    Block,
    Bullets,
    Command,
    Details,
    Document,
    Facts,
    Format,
    Grid,
    Heading,
    Strip,
    Text,
    flat,
    shown,
)
from sweeps.report.formats.fitted import Fitted
from wsss.printable import printable

GAP = (0, 1, 0, 0)
"""Padding of a table's cells: the least, so that one of four measures fits 80 columns."""
MAX_UNBROKEN = 16
"""Characters of the widest number, an interval; columns of longer entries may wrap."""
SHORT_HEAD = 12
"""Characters up to which the head of a column is not wrapped, even above short entries."""
TONES = {"plain": "", "soft": "dim", "mark": "bold yellow"}
TONE_STYLES = {"good": "green", "fair": "yellow", "bad": "red", "open": "cyan", "plain": ""}


def print_document(console: Console, document: Document) -> None:
    """Print a report; wide tables wrap at the terminal's width."""
    console.print(_text(document.title, style="bold"))
    _print(console, document.head)
    for section in document.sections_in(Format.terminal):
        console.print(_text(f"\n{section.title}", style="bold"))
        _print(console, section.blocks)


def _print(console: Console, blocks: tuple[Block, ...]) -> None:
    for found in _renderables(blocks):
        is_whole = isinstance(found, RichText) and bool(found.no_wrap)
        console.print(found, soft_wrap=is_whole)  # a command must survive copying


def _renderables(blocks: tuple[Block, ...]) -> Iterator[RenderableType]:
    for block in shown(blocks, Format.terminal):
        yield from _block(block)


def _block(block: Block) -> Iterator[RenderableType]:
    match block:
        case Text(text, tone):
            yield _text(text, style=TONES[tone])
        case Heading(text):
            yield _text(text, style="bold")
        case Bullets(items):
            yield from map(_item, items)
        case Strip(question, answer, tone, command):
            yield _text(f"{question} ") + _text(answer, style=f"bold {TONE_STYLES[tone]}")
            if command:
                yield from _block(Command("Next", command))
        case Command(lead, command):
            line = _text(f"{lead}: {command}")
            line.no_wrap = True
            yield line
        case Facts(_, rows):
            yield from (_text(f"  {name}: {value}") for name, value in rows)
        case Grid():
            yield _table(block)
        case Details(summary, inner):
            yield _text(summary, style="bold")
            yield from _renderables(inner)
        case _:
            pass  # pictures and links


def _item(text: str) -> Padding:
    return Padding(_text(text), (0, 0, 0, 2))


def _table(grid: Grid) -> Fitted:
    """Return a table whose numbers are never broken."""
    head, groups = flat(grid, short=True, folded=False)
    groups = [[[text.replace(" ± ", "±") for text in line] for line in group] for group in groups]
    num_labels = len(head) - len(grid.columns)
    faint = [column.faint for column in grid.columns]
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=GAP)
    for index, name in enumerate(head):
        is_number = index >= num_labels and grid.columns[index - num_labels].align == "right"
        longest = max((len(line[index]) for group in groups for line in group), default=0)
        words = textwrap.wrap(name, max(longest, SHORT_HEAD), break_long_words=False)
        table.add_column(
            _text("\n".join(words)),
            style="bold" if index < num_labels else "dim" if faint[index - num_labels] else "",
            justify="right" if is_number else "left",
            no_wrap=is_number and longest <= MAX_UNBROKEN,
            overflow="fold",
        )
    for lines, group in zip(groups, grid.groups, strict=True):
        for line, row in zip(lines, group.rows, strict=True):
            tones = [TONE_STYLES[e.tone] if isinstance(e, Badge) else "" for e in row.entries]
            styles = ["dim"] * len(line) if row.faint else [*([""] * num_labels), *tones]
            table.add_row(*(_text(*cell) for cell in zip(line, styles, strict=True)))
        table.add_section()
    return Fitted(table, num_labels)


def _text(text: str, style: str = "") -> RichText:
    """Return text that is neither markup nor, by its control characters, a command."""
    return RichText(printable(text), style=style)
