"""Finds tables by name or alias."""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence

from sweeps.tables.studies import ALIASES, TABLES
from sweeps.tables.table import Table
from wsss.basics.printable import quoted
from wsss.overrides import ConfigError


def find_tables(names: Iterable[str], own: Sequence[Table] = ()) -> tuple[Table, ...]:
    """Return the tables of these names or aliases, each once: the project's first, in their order.

    own: tables from outside the project. Raises ConfigError for an unknown name, or without any.
    """
    for name, count in Counter(table.name for table in own).items():
        if count > 1:
            raise ConfigError(f"two tables are called {name}; give each a name of its own")
    known = TABLES | {table.name: table for table in own}
    wanted = {ALIASES.get(name, name) for name in names}
    for name in sorted(wanted - known.keys()):
        raise ConfigError(f"no table {quoted(name)}; {_hint(name, known)}")
    if not wanted:
        raise ConfigError(
            f"no table is named; there are: {', '.join(known)}; or give --grid or --table"
        )
    return tuple(table for name, table in known.items() if name in wanted)


def _hint(name: str, known: Iterable[str]) -> str:
    """Name the tables with a similar name, or all."""
    if near := difflib.get_close_matches(name, [*known, *ALIASES], n=2):
        return f"did you mean {' or '.join(near)}?"
    return f"there are: {', '.join(known)}"
