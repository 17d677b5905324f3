"""The `wsss` program: one stage of the method at a time. Tables are filled by `sweeps`.

A command's module imports torch and pydantic inside the functions that need them, so that `--help`
answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.method import data, predict, settings, stages
from sweeps.cli.program import HELP, Command
from sweeps.cli.signals import EndedBySignals
from sweeps.cli.version import before_any_command


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

    given = {
        "device": device,
        "data": data,
        "weights": weights,
        "out": out,
        "minutes": minutes,
        "preset": preset,
    }
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    raise typer.Exit(main([*words, *(["--small"] if small else [])]))


PANELS = {
    "Training and CAMs": (stages.train_cam, stages.infer, stages.evaluate),
    "Labels and segmentation": (stages.pseudo_label, predict.predict),
    "Before a run": (settings.settings, gpu_check),
}
"""Heading in the help -> its commands, in this order."""

app = typer.Typer(
    cls=EndedBySignals,
    no_args_is_help=True,
    context_settings=HELP,
    pretty_exceptions_enable=False,
    help="Class activation maps as pseudo-labels: check data, train, infer CAMs, "
    "evaluate, write pseudo-labels, predict, check a GPU.",
)
app.callback()(before_any_command)
for _panel, _commands in PANELS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_panel)(_command)
app.add_typer(data.data_app, name="data", rich_help_panel="Before a run")
