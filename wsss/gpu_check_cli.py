"""The command gpu-check, which hands over to `python -m wsss.gpu_check`."""

from pathlib import Path
from typing import Annotated

import typer


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
