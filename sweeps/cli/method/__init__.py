"""The `wsss` program: one stage of the method at a time. Tables are filled by `sweeps`.

A command's module imports torch and pydantic inside the functions that need them, so that `--help`
answers at once.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.cli.method import data, predict, settings, stages
from sweeps.cli.options import words_of
from sweeps.cli.program import HELP, Command, Program, before_any_command
from sweeps.run.signals import as_ctrl_c


class EndedBySignals(Program):
    """A program whose commands print one line when Ctrl-C, SIGTERM or a lost terminal ends them.

    The exit code is 128 plus the signal's number, as in a shell: 130, 143 or 129. A signal that is
    ignored when the command starts, as SIGHUP is under `nohup`, stays ignored.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Raises SystemExit if a signal ends it."""
        with as_ctrl_c() as came:
            try:
                return super().invoke(ctx)
            except BaseException:
                # Not always KeyboardInterrupt: torch raises RuntimeError within a checkpoint.
                if not came:
                    raise
                with suppress(OSError):  # the terminal may be gone
                    print(
                        f"ended by {came[0].name}: what is finished is kept; run the same command "
                        "again to resume",
                        file=sys.stderr,
                        flush=True,
                    )
                raise SystemExit(128 + came[0]) from None


def gpu_check(
    ctx: typer.Context,
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
    minutes: Annotated[float, typer.Option(min=0, help="time limit")] = 8.0,
    small: Annotated[bool, typer.Option("--small", help="small sizes, for a CPU")] = False,
    preset: Annotated[
        str | None, typer.Option(help="preset whose speed is measured; default: paper")
    ] = None,
) -> None:
    """Check results and speed on this machine's GPU, in eight minutes.

    wsss gpu-check --data /data/VOC2012 --weights resnet50-0676ba61.pth
    """
    from wsss.gpu_check.__main__ import main

    raise typer.Exit(main(words_of(ctx.command, ctx.params)))


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
