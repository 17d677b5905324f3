"""The `wsss` command: one stage of the method at a time. Tables are filled by `sweeps`.

A command's module imports torch and pydantic inside the functions that need them, so that `--help`
answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from wsss import cam_cli, data_cli, predict_cli, pseudo_label_cli

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Class activation maps as pseudo-labels: check data, train, infer CAMs, "
    "evaluate, write pseudo-labels, predict, check a GPU.",
)


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


PANELS = {
    "Training and CAMs": (cam_cli.train_cam, cam_cli.infer, cam_cli.evaluate),
    "Labels and segmentation": (pseudo_label_cli.pseudo_label, predict_cli.predict),
    "Before a run": (gpu_check,),
}
"""Heading in the help -> its commands, in this order."""

for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data_cli.data_app, name="data", rich_help_panel="Before a run")
