"""A report as a list of blocks: built once per subject, rendered once per format.

A block holds words and numbers, and no markup: escaping, colours and layout belong to the renderers
in formats/. Sections, columns, rows and `Only` blocks name the formats that show them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Literal


class Format(StrEnum):
    """What blocks are rendered to. A CSV file holds the document's records instead."""

    html = "html"
    markdown = "markdown"
    latex = "latex"
    terminal = "terminal"


DASH = "–"
"""An entry without a value."""

ALL = frozenset(Format)
ON_PAGES = frozenset({Format.html, Format.markdown})
"""Formats that scroll, and so have room for everything."""
HTML = frozenset({Format.html})
LATEX = frozenset({Format.latex})
TERMINAL = frozenset({Format.terminal})

BadgeTone = Literal["good", "fair", "bad", "open", "plain"]
"""good, fair and bad: how well a claim holds; open: not decided; plain: no claim."""
Tone = Literal["plain", "soft", "mark"]
"""soft: an explanation; mark: a warning that applies to the whole report."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]

    @classmethod
    def of(cls, facts: Iterable[tuple[str, object]]) -> "Bullets":
        """Return names and their values."""
        return cls(tuple(f"{name}: {value}" for name, value in facts))


@dataclass(frozen=True)
class Strip:
    """A question with its answer on a coloured background."""

    question: str
    answer: str
    tone: BadgeTone = "plain"
    command: str = ""
    """What to do next; empty if there is nothing to do."""


@dataclass(frozen=True)
class Command:
    """A command line, which is never wrapped, and what it does."""

    lead: str
    command: str


@dataclass(frozen=True)
class Badge:
    """A word on a coloured background."""

    text: str
    tone: BadgeTone = "plain"


@dataclass(frozen=True)
class Measured:
    """An entry of a grid: a measured number beside the printed one, with its badges and links."""

    text: str
    printed: str
    """The paper's number; empty if there is none."""
    badges: tuple[Badge, ...]
    links: tuple[tuple[str, str], ...] = ()
    """Words and web address of each."""


Entry = str | Badge | Measured


@dataclass(frozen=True)
class Column:
    """A column of entries."""

    name: str
    short: str = ""
    """Its name in a terminal and in LaTeX, where space is short; default: the same."""
    group: str = ""
    """Heading over this column and its neighbours, e.g. that their numbers are printed."""
    align: Literal["left", "right", "center"] = "right"
    wraps: bool = False
    """Whether its entries are sentences."""
    shaded: bool = False
    faint: bool = False
    """Whether its numbers cannot be compared with the others."""
    formats: frozenset[Format] = ALL


@dataclass(frozen=True)
class Row:
    """One row of a grid: its labels, then an entry per column."""

    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    strong: bool = False
    formats: frozenset[Format] = ALL


@dataclass(frozen=True)
class RowGroup:
    """Rows that belong together, under a title."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Grid:
    """A table."""

    name: str
    """What a screen reader calls it."""
    label_names: tuple[str, ...]
    columns: tuple[Column, ...]
    groups: tuple[RowGroup, ...]
    group_name: str = ""
    """Heading of the groups' titles, in formats that make them a column."""
    style: Literal["layout", "evidence", "numbers", "settings", "plain"] = "plain"
    """Its look on a page. layout: as printed in the paper, with several facts in an entry."""

    def cut(self, kept: Sequence[int]) -> "Grid":
        """Return the table with only the columns at these positions."""

        def cut_row(row: Row) -> Row:
            return replace(row, entries=tuple(row.entries[at] for at in kept))

        groups = tuple(replace(g, rows=tuple(map(cut_row, g.rows))) for g in self.groups)
        return replace(self, columns=tuple(self.columns[at] for at in kept), groups=groups)

    def seen_in(self, form: Format) -> "Grid":
        """Return the table with the rows and columns that a format shows, without empty columns."""
        groups = tuple(
            replace(group, rows=rows)
            for group in self.groups
            if (rows := tuple(row for row in group.rows if form in row.formats))
        )
        kept = [
            index
            for index, column in enumerate(self.columns)
            if form in column.formats
            and any(plain(r.entries[index]) not in ("", DASH) for g in groups for r in g.rows)
        ]
        return replace(self, groups=groups).cut(kept)


def in_one_group(rows: Iterable[Row]) -> tuple[RowGroup, ...]:
    """Return the groups of a grid whose rows are not grouped."""
    return (RowGroup("", tuple(rows)),)


@dataclass(frozen=True)
class Picture:
    """A figure: SVG text, or an image as a data URI."""

    title: str
    caption: str
    svg: str = ""
    image: str = ""
    file: str = ""
    """Name of the same image as a file beside the report, if there is one."""
    wide: bool = False
    """Whether a narrow page scrolls it sideways instead of shrinking it."""


@dataclass(frozen=True)
class Pictures:
    """Figures side by side."""

    pictures: tuple[Picture, ...]
    in_a_row: bool = False
    """Whether they stay side by side on a narrow page, which scrolls them sideways."""


@dataclass(frozen=True)
class Details:
    """Blocks that a page shows on request; other formats show them at once."""

    summary: str
    blocks: "tuple[Block, ...]"


@dataclass(frozen=True)
class Only:
    """Blocks that only some formats show."""

    formats: frozenset[Format]
    blocks: "tuple[Block, ...]"


Words = Text | Heading | Bullets | Strip | Command
Block = Words | Grid | Picture | Pictures | Details | Only


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    short: str
    """Its name in the table of contents."""
    anchor: str
    """Its id on a page, unique in the document."""
    blocks: tuple[Block, ...]
    number: str = ""
    """Number of the table that it holds, e.g. "III"; empty for a section of text."""
    caption: str = ""
    """The table's caption in LaTeX."""
    formats: frozenset[Format] = ALL


@dataclass(frozen=True)
class Records:
    """The numbers of a report, unrounded, for scripts and spreadsheets; None: no such number."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, object]]) -> "Records":
        """Return rows of values by column; the longest row sets the order of the columns."""
        by_length = sorted(rows, key=len, reverse=True)
        columns = tuple(dict.fromkeys(name for row in by_length for name in row))
        return cls(columns, tuple(tuple(map(row.get, columns)) for row in rows))


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    head: tuple[Block, ...]
    """The blocks above the sections: data and settings, warnings, how to read the tables."""
    sections: tuple[Section, ...]
    records: Records
    mark: str = ""
    """A word that marks each table in LaTeX, e.g. as not of the paper's scale."""

    def sections_in(self, form: Format) -> tuple[Section, ...]:
        """Return the sections that a format shows."""
        return tuple(section for section in self.sections if form in section.formats)


def shown(blocks: Iterable[Block], form: Format) -> Iterator[Block]:
    """Yield the blocks that a format shows, `Only` blocks replaced by what they hold."""
    for block in blocks:
        if isinstance(block, Only):
            if form in block.formats:
                yield from shown(block.blocks, form)
        else:
            yield block.seen_in(form) if isinstance(block, Grid) else block


def column_groups(grid: Grid) -> list[tuple[str, int]]:
    """Return (name, number of columns) of the headings above the columns; empty if none."""
    found = groupby(column.group for column in grid.columns)
    groups = [(name, len(list(columns))) for name, columns in found]
    return groups if any(name for name, _ in groups) else []


def plain(entry: Entry) -> str:
    """Return an entry as text, the printed number in parentheses."""
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Badge):
        return entry.text
    return f"{entry.text} ({entry.printed})" if entry.printed else entry.text


def flat(grid: Grid, *, short: bool = False) -> tuple[list[str], list[list[list[str]]]]:
    """Return (head, groups of rows) of a grid as text; the groups' titles become a column.

    short: use the columns' short names, without their groups.
    """
    titled = any(group.title for group in grid.groups)
    head = [*grid.label_names, *([grid.group_name] if titled else [])]
    for column in grid.columns:
        name = (column.short if short else "") or column.name
        head.append(name if short or not column.group else f"{name} ({column.group})")
    groups = [
        [
            [*row.labels, *([group.title] if titled else []), *map(plain, row.entries)]
            for row in group.rows
        ]
        for group in grid.groups
    ]
    return head, groups
