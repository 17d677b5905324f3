"""A report as a list of blocks: built once per subject, rendered once per format.

A block holds words and numbers, and no markup: escaping, colours and layout belong to the renderers
(html, markdown, latex, terminal, csv_file). What only some formats have room for says so by
`formats`: in an `Only` block, a section, a column or a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal


class Format(StrEnum):
    """What blocks are rendered to. The CSV file holds a document's records instead."""

    html = "html"
    markdown = "markdown"
    latex = "latex"
    terminal = "terminal"


DASH = "–"
"""An entry that says nothing."""

ALL = frozenset(Format)
ON_PAGES = frozenset({Format.html, Format.markdown})
"""Formats that are scrolled, and so have room for everything."""

BadgeTone = Literal["good", "fair", "bad", "open", "plain"]
"""good to bad; open: not decided; plain: nothing to decide."""
Tone = Literal["plain", "soft", "mark"]
"""soft: an explanation; mark: a warning under which all else stands."""


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


@dataclass(frozen=True)
class Strip:
    """A question with its answer on coloured ground."""

    question: str
    answer: str
    tone: BadgeTone = "plain"
    command: str = ""
    """What to do next; empty if there is nothing to do."""


@dataclass(frozen=True)
class Command:
    """A command line, never broken, and what it is."""

    lead: str
    command: str


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    header: tuple[str, str]
    """What the names and the values are, where a format shows them as a table with a head."""
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Links:
    """(words, address) of pages elsewhere, and what they are."""

    lead: str
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Badge:
    """A word on coloured ground."""

    text: str
    tone: BadgeTone = "plain"


@dataclass(frozen=True)
class Measured:
    """An entry of a grid: a measured number beside the printed one, and what is said of it."""

    text: str
    printed: str
    """The paper's number; empty if it prints none."""
    badges: tuple[Badge, ...]
    links: tuple[tuple[str, str], ...]


Entry = str | Badge | Measured


@dataclass(frozen=True)
class Column:
    """A column of entries."""

    name: str
    short: str = ""
    """Its name where space is narrow (terminal, LaTeX); default: the same."""
    group: str = ""
    """What it shares with the columns beside it, e.g. that their numbers are printed."""
    align: Literal["left", "right", "center"] = "right"
    wraps: bool = False
    """Whether its entries are sentences."""
    shaded: bool = False
    faint: bool = False
    """Whether its numbers are not to be held against the others."""
    formats: frozenset[Format] = ALL


@dataclass(frozen=True)
class Row:
    """One line of a grid: its labels, then an entry per column."""

    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    strong: bool = False
    faint: bool = False
    """Whether its numbers are not to be held against the others."""
    formats: frozenset[Format] = ALL

    def cut(self, kept: Sequence[int]) -> "Row":
        """Return the line with the entries at these positions alone."""
        return replace(self, entries=tuple(self.entries[index] for index in kept))


@dataclass(frozen=True)
class RowGroup:
    """Lines that belong together, and what they share."""

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
    """What the titles of the groups are, where a format makes them a column."""
    style: Literal["layout", "evidence", "numbers", "settings", "plain"] = "plain"
    """Its look on a page. layout: as printed in the paper, with several facts in an entry."""

    def cut(self, kept: Sequence[int]) -> "Grid":
        """Return the table with the columns at these positions alone."""
        groups = tuple(
            replace(group, rows=tuple(row.cut(kept) for row in group.rows)) for group in self.groups
        )
        return replace(self, columns=tuple(self.columns[at] for at in kept), groups=groups)

    def seen_in(self, form: Format) -> "Grid":
        """Return the table without the rows and columns that a format has no room for.

        Nor has it columns in which no row says anything.
        """
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


def in_one_group(rows: tuple[Row, ...]) -> tuple[RowGroup, ...]:
    """Return the groups of a grid that has none."""
    return (RowGroup("", rows),)


@dataclass(frozen=True)
class Picture:
    """A figure: SVG text of our own, or an image as a data URI."""

    title: str
    caption: str
    svg: str = ""
    image: str = ""
    file: str = ""
    """Name of the same image as a file beside the report, if there is one."""
    wide: bool = False
    """Whether it is scrolled sideways rather than shrunk to the page."""


@dataclass(frozen=True)
class Pictures:
    """Figures side by side; formats without pictures leave them out."""

    pictures: tuple[Picture, ...]
    in_a_row: bool = False
    """Whether they stay beside each other on a narrow page, which is then scrolled sideways."""


@dataclass(frozen=True)
class Details:
    """Blocks that a page shows on request; other formats show them at once."""

    summary: str
    blocks: "tuple[Block, ...]"


@dataclass(frozen=True)
class Only:
    """Blocks that some formats have room for."""

    formats: frozenset[Format]
    blocks: "tuple[Block, ...]"


Words = Text | Heading | Bullets | Strip | Command | Facts | Links
Block = Words | Grid | Picture | Pictures | Details | Only


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    short: str
    """Its name in the table of contents."""
    anchor: str
    """Unique in the document: letters, digits, and what HTML takes in an id."""
    blocks: tuple[Block, ...]
    number: str = ""
    """Number of the table that it is, e.g. "III"; empty for a section of text."""
    caption: str = ""
    """What stands under the table on paper."""
    formats: frozenset[Format] = ALL


@dataclass(frozen=True)
class Records:
    """The numbers of a report, unrounded, for scripts and spreadsheets; None: no such number."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    head: tuple[Block, ...]
    """What stands above the sections: data and settings, warnings, how to read the tables."""
    sections: tuple[Section, ...]
    records: Records
    mark: str = ""
    """What each of its tables is marked with, e.g. as not of the paper's scale."""

    def sections_in(self, form: Format) -> tuple[Section, ...]:
        """Return the sections that a format shows."""
        return tuple(section for section in self.sections if form in section.formats)


def shown(blocks: tuple[Block, ...], form: Format) -> Iterator[Block]:
    """Yield the blocks that a format shows, with those in `Only` blocks in their place."""
    for block in blocks:
        if isinstance(block, Only):
            if form in block.formats:
                yield from shown(block.blocks, form)
        else:
            yield block.seen_in(form) if isinstance(block, Grid) else block


def plain(entry: Entry) -> str:
    """Return an entry as text, the printed number in parentheses."""
    if isinstance(entry, str):
        return entry
    if isinstance(entry, Badge):
        return entry.text
    return f"{entry.text} ({entry.printed})" if entry.printed else entry.text


def flat(
    grid: Grid, *, short: bool = False, folded: bool = True
) -> tuple[list[str], list[list[list[str]]]]:
    """Return (head, groups of lines) of a grid as text; titles of groups become a column.

    short: take the columns' short names. folded: a column's group is a part of its name.
    """
    titled = any(group.title for group in grid.groups)
    head = [*grid.label_names, *([grid.group_name] if titled else [])]
    for column in grid.columns:
        name = (column.short if short else "") or column.name
        head.append(f"{name} ({column.group})" if folded and column.group else name)
    groups = [
        [
            [*row.labels, *([group.title] if titled else []), *map(plain, row.entries)]
            for row in group.rows
        ]
        for group in grid.groups
    ]
    return head, groups
