"""What a person sees while a command goes through many files."""

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Iterable[Item], what: str, number: int | None = None) -> Iterable[Item]:
    """Return the items; on a terminal, a bar on the error output says how far they are taken.

    what: the bar's title; number: of the items, if they have no length. The bar goes away at the
    end.
    """
    from rich.console import Console  # here, as most commands show no bar
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_interactive
    return track(items, what, number, console=console, transient=True, disable=hidden)
