"""What the two programs share: how they start, and how they parse options."""

import inspect
import math
import os
import re
import sys
import warnings
from collections import Counter
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from wsss.basics.errors import ForeseenError, explained
from wsss.basics.files import NO_HOME, expanded
from wsss.basics.printable import SPELLED_OUT, command

HELP = {"help_option_names": ["-h", "--help"]}
"""Options that print the help of a program or command."""
LOCAL = ("localhost", "127.0.0.1", "::1")
"""Hosts that must not go through a proxy, for which they would be the proxy's own."""


APPS = {"sweeps": "sweeps.cli", "wsss": "sweeps.cli.method"}
"""Program -> the module of its commands."""
KINDS = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}
"""Type -> short name of an option's value in the help, which leaves room for its text; of one of
several words NAME."""


class Command(TyperCommand):
    """A command that expands `~` in what it is given.

    It refuses empty and repeated words, infinite numbers, and addresses for paths. Foreseen errors
    are printed, with exit code 2.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = _plain(_reflowed(self.help or ""))
        self.params.sort(key=lambda each: isinstance(each, TyperOption))  # arguments first
        for each in self.params:
            if isinstance(each, TyperOption):
                each.help = _plain(each.help or "")

    def get_params(self, ctx: Any) -> Any:
        """Return arguments and options as the help shows them."""
        return _in_words(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse them; exit with 2 for an unknown home, or a word that is refused.

        An empty path would be the current folder, `s3://b/x` the folder `s3:` in it; of a repeated
        option, only the last would count.
        """
        given, rest, found = self.make_parser(ctx).parse_args(args=[*args])
        with explained():
            if rest and any("--sweep" in each.opts for each in self.params):
                raise ForeseenError(
                    f"{' '.join(rest)}: not taken here; a sweep is named with --sweep, and `sweeps "
                    "list` shows the names"
                )
            for each, count in Counter(found).items():
                if fault := _fault(each, given[each.name], count):
                    named = each.opts[0] if isinstance(each, TyperOption) else "an argument"
                    raise ForeseenError(f"{named}: {fault}")
        rest = super().parse_args(ctx, args)
        with explained():
            for each in self.params:
                value = ctx.params.get(each.name)
                if isinstance(value, float) and not math.isfinite(value):
                    raise ForeseenError(f"{each.opts[0]}: {value} is no finite number; give one")
            ctx.params = {name: _expanded(value) for name, value in ctx.params.items()}
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with explained():
            return super().invoke(ctx)


class Program(TyperGroup):
    """A program that first adapts to unusual machines."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the program."""
        print_anywhere()
        have_a_width()
        have_a_home()
        reach_local_servers()
        draw_into_files()
        let_libraries_warn()
        use_ray_as_tested()
        with explained():  # a full disk, on which the help is to be written
            return super().main(*args, **options)

    def get_params(self, ctx: Any) -> Any:
        """Return the options as the help shows them."""
        return _in_words(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command; for one of the other program, exit with 2 and say how to give it."""
        name = args[0]
        if name not in self.commands:
            with explained():
                for program, module in APPS.items():
                    others = get_command(import_module(module).app)
                    if isinstance(others, TyperGroup) and name in others.commands:
                        raise ForeseenError(
                            f"{name}: a command of {program}; give: {command(program, *args)}"
                        )
        return super().resolve_command(ctx, args)


def print_anywhere() -> None:
    """Spell out, in what is printed, characters that the terminal's encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, TextIOWrapper):
            continue
        if stream.errors == "surrogateescape" and stream.encoding.lower().startswith("utf"):
            continue  # file names in another encoding are printed as they are
        stream.reconfigure(errors=SPELLED_OUT)


def have_a_width() -> None:
    """Ignore a terminal size of 0, as from `docker exec -t`: Rich would print nothing."""
    for name in ("COLUMNS", "LINES"):
        if os.environ.get(name) == "0":
            del os.environ[name]


def have_a_home() -> None:
    """Set HOME if there is none, as MLflow cannot be imported without one."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path's raises
        os.environ["HOME"] = NO_HOME


def reach_local_servers() -> None:
    """Make connections to this machine bypass the proxy, if one is set."""
    if not any(
        os.environ.get(name)
        for kind in ("http", "https", "all")
        for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")
    ):
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" in hosts:
        return  # nothing goes through the proxy
    both = ",".join([*hosts, *(host for host in LOCAL if host not in hosts)])
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = both


def draw_into_files() -> None:
    """Ignore a notebook's MPLBACKEND: where its package is missing, Matplotlib cannot be loaded."""
    os.environ.pop("MPLBACKEND", None)


def let_libraries_warn() -> None:
    """Take back `error` of PYTHONWARNINGS: MLflow and torchvision warn of what they use."""
    asked = [option for option in sys.warnoptions if option.startswith("error")]
    for option in asked:
        sys.warnoptions.remove(option)  # which processes that this one starts would get
    if asked:
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.filters = [each for each in warnings.filters if each[0] != "error"]


def use_ray_as_tested() -> None:
    """Take back what other projects tell Ray by variables, and what it does under `uv run`.

    Tune refuses the folders of older versions, and the older Ray Train lacks what is used here.
    Under uv, Ray would have it make another environment for workers, in a copy of this folder.
    """
    for name in ("TUNE_RESULT_DIR", "RAY_AIR_LOCAL_CACHE_DIR"):
        os.environ.pop(name, None)
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def _reflowed(text: str) -> str:
    """Return a docstring with each paragraph on one line, except indented ones."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith(" ") else p.replace("\n", " ") for p in paragraphs)


def _plain(text: str) -> str:
    """Return a help text in which no [word] is taken for markup, which would be hidden."""
    return re.sub(r"(\[[a-z#/@])", r"\\\1", text)


def _in_words(parameters: list[Any]) -> list[Any]:
    """Replace Python's names in the help: types (`<list[str]>`), and arguments in lower case."""
    for each in parameters:
        if not isinstance(each, TyperOption):
            each.display_type_rich = lambda ctx: ""
        if each.metavar is None:
            kind = KINDS.get(_kind(each), "NAME")
            each.metavar = kind if isinstance(each, TyperOption) else each.name.upper()
    return parameters


def _kind(parameter: Any) -> Any:
    """Return the type of a parameter's value; of a list, its items'."""
    kind = parameter.type_descriptor.annotation
    return (*get_args(kind), kind)[0]


def _fault(parameter: Any, given: Any, count: int) -> str:
    """Say what is wrong with the words given for a parameter; "" if nothing. count: how often."""
    words = given if isinstance(given, list | tuple) else [given]
    if "" in words:
        return "empty, perhaps from an unset variable; give it a value or leave it out"
    if _kind(parameter) is Path and (urls := [word for word in words if "://" in str(word)]):
        return f"{urls[0]} is an address; give a path on this machine"
    is_single = isinstance(parameter, TyperOption) and not (parameter.is_flag or parameter.multiple)
    return "given twice; give it once" if count > 1 and is_single else ""


def _expanded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_expanded, value))
    if isinstance(value, Path):
        return Path(expanded(str(value)))
    return expanded(value) if isinstance(value, str) else value


def _show_version(context: typer.Context, wanted: bool) -> None:  # noqa: FBT001 - typer's order
    if wanted:
        from sweeps.store.code_version import code_version

        print(f"{context.find_root().info_name} {code_version()}")
        raise typer.Exit


def before_any_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="print release, commit and a digest of the sources",
        ),
    ] = False,
) -> None:
    """Parse the options of the program itself."""
