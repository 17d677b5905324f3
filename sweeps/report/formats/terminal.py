"""Reports in a terminal, and tables that fit any width without cutting a word or number."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text as RichText

from sweeps.report.document import (
    Badge,
    Block,
    Bullets,
    Command,
    Details,
    Document,
    Entry,
    Format,
    Grid,
    Heading,
    Measured,
    Row,
    Strip,
    Text,
    flat,
    shown,
)
from wsss.basics.printable import printable

GAP = (0, 1, 0, 0)
"""Padding of a table's cells: so small that a table of four measures fits 80 columns."""
MAX_UNBROKEN = 16
"""Characters of the longest interval; columns with longer entries may wrap."""
SHORT_HEAD = 12
"""Headings are wrapped to the width of their entries, but to no fewer characters than this."""
TONES = {"plain": "", "soft": "dim", "mark": "bold yellow"}
TONE_STYLES = {"good": "green", "fair": "yellow", "bad": "red", "open": "cyan", "plain": ""}


class Fitted:
    """A grid as a table that is split, if too wide, into several with the same labels.

    A column is at least as wide as its longest word, or its longest line if it must not wrap.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        padding = sum(GAP) + 1  # and a border
        least = [_widths(column)[0] + padding for column in _table(self.grid).columns]
        num_labels = len(least) - len(self.grid.columns)
        parts: list[list[int]] = [[]]
        for index, width in enumerate(least[num_labels:]):
            others = sum(least[num_labels + at] for at in parts[-1])
            if parts[-1] and sum(least[:num_labels]) + others + width + 1 > options.max_width:
                parts.append([])
            parts[-1].append(index)
        for part in parts:
            table = _table(self.grid.cut(part))
            room = options.max_width - 1 - padding * len(table.columns)
            limits = [_widths(column) for column in table.columns]
            for column, width in zip(table.columns, _shared(limits, room), strict=True):
                column.width = width
            yield table


def _widths(column: Column) -> tuple[int, int]:
    """Return the least width of a column and the length of its longest line."""
    texts = [str(text) for text in (column.header, *column.cells)]
    word = max((cell_len(word) for text in texts for word in text.split()), default=1)
    line = max((cell_len(line) for text in texts for line in text.splitlines()), default=1)
    return (line if column.no_wrap else word), line


def _shared(limits: Sequence[tuple[int, int]], room: int) -> list[int]:
    """Return widths within (least, most) that fill the room; the narrowest columns grow first."""
    widths = [least for least, _ in limits]
    while sum(widths) < room:
        growing = [at for at, (_, most) in enumerate(limits) if widths[at] < most]
        if not growing:
            break
        widths[min(growing, key=widths.__getitem__)] += 1
    return widths


def print_document(console: Console, document: Document) -> None:
    """Print a report at the terminal's width."""
    console.print(as_rich(document.title, style="bold"))
    print_blocks(console, document.head)
    for section in document.sections_in(Format.terminal):
        console.print(as_rich(f"\n{section.title}", style="bold"))
        print_blocks(console, section.blocks)


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """Print blocks at the terminal's width."""
    for found in renderables(blocks):
        is_whole = isinstance(found, RichText) and bool(found.no_wrap)
        console.print(found, soft_wrap=is_whole)  # so that a command can be copied


def renderables(blocks: Iterable[Block]) -> Iterator[RenderableType]:
    """Yield what Rich prints for the blocks."""
    for block in shown(blocks, Format.terminal):
        yield from _block(block)


def _block(block: Block) -> Iterator[RenderableType]:
    match block:
        case Text(text, tone):
            yield as_rich(text, style=TONES[tone])
        case Heading(text):
            yield as_rich(text, style="bold")
        case Bullets(items):
            yield from (Padding(as_rich(item), (0, 0, 0, 2)) for item in items)
        case Strip(question, answer, tone, command):
            yield as_rich(f"{question} ") + as_rich(answer, style=f"bold {TONE_STYLES[tone]}")
            if command:
                yield from _block(Command("Next", command))
        case Command(lead, command):
            line = as_rich(f"{lead}: {command}")
            line.no_wrap = True
            yield line
        case Grid():
            yield Fitted(block)
        case Details(summary, inner):
            yield as_rich(summary, style="bold")
            yield from renderables(inner)
        case _:
            pass  # pictures


def _table(grid: Grid) -> Table:
    head, groups = flat(grid, short=True)
    num_labels = len(head) - len(grid.columns)
    rows = [
        [_cells(line[:num_labels], row) for line, row in zip(lines, group.rows, strict=True)]
        for lines, group in zip(groups, grid.groups, strict=True)
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=GAP)
    for index, name in enumerate(head):
        column = grid.columns[index - num_labels] if index >= num_labels else None
        align = column.align if column else "left"
        texts = [cells[index].plain for group in rows for cells in group]
        longest = max((len(line) for text in texts for line in text.split("\n")), default=0)
        words = textwrap.wrap(name, max(longest, SHORT_HEAD), break_long_words=False)
        table.add_column(
            as_rich("\n".join(words)),
            style="bold" if column is None else "dim" if column.faint else "",
            justify=align,
            no_wrap=align == "right" and longest <= MAX_UNBROKEN,
            overflow="fold",
        )
    for group in rows:
        for cells in group:
            table.add_row(*cells)
        table.add_section()
    return table


def _cells(labels: list[str], row: Row) -> list[RichText]:
    return [*map(as_rich, labels), *map(_entry, row.entries)]


def _entry(entry: Entry) -> RichText:
    """Return an entry; of a measured one, its lines, its badges and the printed number."""
    match entry:
        case Badge(text, tone):
            return as_rich(text, TONE_STYLES[tone])
        case Measured(text, printed, badges):
            first, *more = text.replace(" ± ", "±").split("\n")
            parts = [as_rich(first, "bold"), *map(as_rich, more), *map(_entry, badges)]
            parts.append(as_rich(printed, "dim"))
            return RichText("\n").join(part for part in parts if part.plain)
        case _:
            return as_rich(entry.replace(" ± ", "±"))


def as_rich(text: str, style: str = "") -> RichText:
    """Return text without markup, its control characters escaped."""
    return RichText(printable(text), style=style)
