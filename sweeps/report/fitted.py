"""Tables for terminals of any width: no word and no number is ever cut."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Column, Table
from rich.text import Text


class Fitted:
    """A table under its title which, where too wide, is shown as several with the same labels.

    A column is never narrower than the longest word in it, or line if it is not to be wrapped.
    """

    def __init__(self, table: Table, num_labels: int) -> None:
        self.table, self.num_labels = table, num_labels

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        if self.table.title:  # as wide as the terminal; Rich's own is as narrow as the table
            yield Text(str(self.table.title), style=self.table.title_style or "italic")
        padding = self.table.padding[1] + self.table.padding[3] + 1  # and a border
        least, most = zip(*map(_widths, self.table.columns), strict=True)
        labels = list(range(self.num_labels))
        parts: list[list[int]] = [labels]
        for index in range(self.num_labels, len(least)):
            wanted = [*parts[-1], index]
            used = sum(least[at] + padding for at in wanted) + 1
            if used > options.max_width and len(parts[-1]) > self.num_labels:
                wanted = [*labels, index]
                parts.append(wanted)
            parts[-1] = wanted
        for part in parts:
            widths = [least[at] for at in part], [most[at] for at in part]
            room = options.max_width - 1 - padding * len(part)
            yield self._part(part, _shared(*widths, room))

    def _part(self, kept: Sequence[int], widths: Sequence[int]) -> Table:
        """Return the table with these columns alone, of these widths."""
        table = self.table
        part = Table(
            box=table.box,
            show_lines=table.show_lines,
            pad_edge=table.pad_edge,
            padding=table.padding,
        )
        part.columns = [
            replace(table.columns[index], width=width, overflow="fold", _index=at)
            for at, (index, width) in enumerate(zip(kept, widths, strict=True))
        ]
        part.rows = table.rows
        return part


def _widths(column: Column) -> tuple[int, int]:
    """Return the lengths of a column's longest word and of its longest line."""
    texts = [str(text) for text in (column.header, *column.cells)]
    word = max((cell_len(word) for text in texts for word in text.split()), default=1)
    line = max((cell_len(line) for text in texts for line in text.splitlines()), default=1)
    return (line if column.no_wrap else word), line


def _shared(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Return widths between least and most that use the room, the narrowest columns first."""
    widths = list(least)
    while sum(widths) < room and widths != list(most):
        growing = [at for at, width in enumerate(widths) if width < most[at]]
        widths[min(growing, key=lambda at: widths[at])] += 1
    return widths
