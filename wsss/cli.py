"""Commands of the `wsss` program that need no store of results; sweeps/cli/method.py has them all.

`python -m wsss` offers these alone. A command's module imports torch and pydantic inside the
functions that need them, so that `--help` answers at once.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsss import data_cli, predict_cli


def gpu_check(
    device: Annotated[str | None, typer.Option(help="cuda | cpu; default: cuda")] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder in VOC layout; default: drawn pictures")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="state dict of a backbone; default: random weights")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for the page and its numbers")] = Path(
        "gpu-check"
    ),
    minutes: Annotated[float, typer.Option(help="at most so many")] = 8.0,
    small: Annotated[bool, typer.Option("--small", help="small sizes, for a CPU")] = False,
    preset: Annotated[str | None, typer.Option(help="whose speed; default: paper")] = None,
) -> None:
    """Check that everything is right and fast on this machine's GPU, in eight minutes."""
    from wsss.gpu_check.__main__ import main

    given = {"device": device, "data": data, "weights": weights, "out": out, "minutes": minutes,
             "preset": preset}  # fmt: skip
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    raise typer.Exit(main([*words, *(["--small"] if small else [])]))


Panels = Mapping[str, Sequence[Callable[..., None]]]
"""Heading in the help -> its commands."""

PANELS: Panels = {
    "Labels and segmentation": (predict_cli.predict,),
    "Before a run": (gpu_check,),
}


def make_app(text: str, panels: Panels) -> typer.Typer:
    """Return a program with these commands and those on data; text: its help."""
    program = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=text
    )
    for panel, commands in panels.items():
        for command in commands:
            program.command(rich_help_panel=panel)(command)
    program.add_typer(data_cli.data_app, name="data", rich_help_panel="Before a run")
    return program


app = make_app(
    "Get, draw or check data, segment pictures, check a GPU. The installed `wsss` also trains, "
    "infers CAMs, evaluates and writes pseudo-labels.",
    PANELS,
)
