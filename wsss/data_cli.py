"""The command `wsss data prepare`: the public archives become a folder in VOC layout."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wsss.errors import explained


def prepare(
    root: Annotated[Path, typer.Argument(help="folder to write, e.g. /data/VOCdevkit/VOC2012")],
    voc: Annotated[
        Path | None, typer.Option(help="local VOCtrainval_11-May-2012.tar; default: download")
    ] = None,
    sbd: Annotated[Path | None, typer.Option(help="local benchmark.tgz; default: download")] = None,
    test: Annotated[Path | None, typer.Option(help="local VOC2012test.tar")] = None,
    with_test: Annotated[
        bool, typer.Option("--with-test", help="add the test pictures, from a mirror")
    ] = False,
    mirror: Annotated[
        list[str] | None,
        typer.Option(help="address of a folder with the archives, tried first; repeatable"),
    ] = None,
    downloads: Annotated[
        Path | None, typer.Option(help="folder of downloaded archives; default: archives by ROOT")
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option(help="FILENAME=HEX, checked beside the known MD5; repeatable"),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="take archives that are not the official ones")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="processes that convert masks; default: one per CPU, up to 8")
    ] = min(8, os.cpu_count() or 1),
) -> None:
    """Make VOC 2012 with SBD's masks and train_aug from the public archives.

    Given again, it does only what is missing, and an interrupted download goes on.
    """
    with explained():
        from rich.console import Console
        from rich.progress import Progress

        from wsss.data.prepare import prepare_voc
        from wsss.data.sources import PrepareRequest
        from wsss.data.voc import DataError

        digests = {}
        for pair in sha256 or []:
            name, equals, digest = pair.partition("=")
            if not (name and equals):
                raise DataError(f"--sha256 {pair}: expected FILENAME=HEX")
            digests[name] = digest
        local = {"voc": voc, "sbd": sbd, "test": test}
        request = PrepareRequest(
            root=root, archives={step: path for step, path in local.items() if path},
            mirrors=tuple(mirror or ()), downloads=downloads, sha256=digests,
            with_test=with_test, allow_partial=allow_partial, num_workers=workers,
        )  # fmt: skip
        try:
            with Progress(console=Console(stderr=True)) as progress:
                print(prepare_voc(request, progress=progress).describe())
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on", err=True)
            raise typer.Exit(130) from None
