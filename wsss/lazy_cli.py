"""Commands whose modules are imported only when they are chosen: a group's help needs none of them.

A command's line in the group's help stands here a second time, beside its place; tests compare it
with the command's own docstring.
"""

import atexit
import gc
import os
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class Lazy(NamedTuple):
    """Where a command is, and what it does in a line."""

    place: str
    """`module:name` of its function, or of the Typer app of its own commands."""
    help: str
    """The first paragraph of its docstring, or its app's help."""


class Unloaded(TyperCommand):
    """Stands for a command whose module is not imported yet: name and line are all it has."""

    def __init__(self, name: str, lazy: Lazy) -> None:
        super().__init__(name, help=lazy.help)
        self.place = lazy.place

    def load(self) -> Any:
        """Return the command itself, with its options. Raises ImportError, AttributeError."""
        assert self.name
        found, alone = resolve_name(self.place), typer.Typer()
        if isinstance(found, typer.Typer):
            alone.add_typer(found, name=self.name)
        else:
            alone.command(self.name)(found)
        return get_group(alone).commands[self.name]


class LazyGroup(TyperGroup):
    """A group that lists its commands without importing them, and imports the one that is run."""

    lazy: ClassVar[Mapping[str, Lazy]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, lazy in self.lazy.items():
            self.add_command(Unloaded(name, lazy))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the chosen command, imported, its name and its arguments. Shells complete so, too.

        Exits as any group does if there is no such command.
        """
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Unloaded) else command, rest


def lazy_app(text: str, commands: Mapping[str, Lazy]) -> typer.Typer:
    """Return an app with this help and these commands, in this order."""

    class Commands(LazyGroup):
        lazy = commands

    return typer.Typer(
        cls=Commands,
        callback=_before_a_command,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help=text,
    )


def leave_memory_to_the_system() -> None:
    """Let this process end without taking its modules apart, which is a seventh of a short one.

    For commands that read, print and end with every file closed: objects that refer to each other
    in a circle are not collected at the end any more, and would not close theirs.
    """
    atexit.register(gc.freeze)


def _before_a_command() -> None:
    """Keep pydantic from looking for plugins, of which we use none, unless the user has said more.

    The search reads the metadata of every installed package. Without this function, Typer would
    refuse the app as well: it knows no command of it.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
