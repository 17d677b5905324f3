"""The command `sweeps search`: look for better alpha, beta and lambda, apart from all tables."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wsss.errors import explained
from wsss.overrides import parse_assignments


def search(
    preset: Annotated[
        str | None,
        typer.Option(help="tiny (drawn data) | short (real data, laptop) | paper (full, GPUs)"),
    ] = None,
    data: Annotated[
        str, typer.Option(help="folder in VOC layout; `drawn` draws a small data set first")
    ] = "drawn",
    weights: Annotated[
        str | None, typer.Option(help="imagenet | none | state dict file of the preset's backbone")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="replace a setting of the preset, e.g. --set train.lr=0.01"),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(
            help="a range to search, e.g. transfer.lambda_s=0.05:2:log; repeatable; replaces the "
            "default ranges of lambda, alpha and beta"
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="trials in all; raise it to search further")
    ] = 20,
    objective: Annotated[
        str, typer.Option(help="mIoU of the search half at its best threshold, or fixed: at .15")
    ] = "best",
    rng_seed: Annotated[
        int, typer.Option(min=0, help="of the draws; --set rng_seed=... is a training's")
    ] = 0,
    store: Annotated[
        Path, typer.Option("--store", envvar="WSSS_STORE", help="folder that keeps all results")
    ] = Path("results"),
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join; default: start Ray on this machine")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="CPUs per trial")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per trial, e.g. 0.5")] = 0.0,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="trials at a time")] = None,
    loader_workers: Annotated[int, typer.Option(min=0, help="data loading processes")] = 0,
) -> None:
    """Search alpha, beta and lambda; a search is no table. Give it again to resume.

    Optuna draws, ASHA stops poor trials early, one half of the scored images gives the objective,
    and the best three and the paper's setting are scored on the other half at the end.
    """
    from sweeps.search import make_search
    from sweeps.search_space import parse_space
    from sweeps.store import Store

    with explained():
        search_space, overrides = parse_space(space or []), parse_assignments(settings or [])
        planned, report = make_search(
            search_space,
            preset=preset or ("tiny" if data == "drawn" else "short"),
            data=_data_folder(data),
            weights=weights,
            overrides=overrides,
            objective=objective,
            rng_seed=rng_seed,
        )
        split = planned.base.data.train_split
        if from_mask := report.labels_from_mask[split]:
            _say(
                f"{split}: {from_mask} of {report.num_images[split]} images have no XML; their "
                "image-level labels come from their masks"
            )
        from sweeps.search_drive import drive_search

        options = {
            "address": address, "cpus": cpus, "gpus": gpus, "max_concurrent": max_concurrent,
            "loader_workers": loader_workers,
        }  # fmt: skip
        raise typer.Exit(drive_search(planned, Store(store), options, samples=samples))


def _data_folder(data: str) -> Path:
    if data != "drawn":
        return Path(data)
    from wsss.data.drawn import draw_voc

    root = Path("data/drawn")
    if not root.exists():
        _say(f"drawing a small data set into {root}")
    draw_voc(root)
    return root


def _say(text: str) -> None:
    """Tell a person something beside the output."""
    print(text, file=sys.stderr)
