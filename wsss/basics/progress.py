"""What a person sees while a command goes through many files."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Return the items; on a terminal, a bar on the error output says how far they are taken.

    what: the bar's title. The bar goes away at the end.
    """
    from rich.console import Console  # here, as most commands show no bar
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_interactive
    return track(items, what, console=console, transient=True, disable=hidden)
