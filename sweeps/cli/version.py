"""The option `--version` of both programs."""

from typing import Annotated

import typer


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
    """Take the options of the program itself."""
