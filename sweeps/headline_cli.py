"""The command `sweeps headline`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from sweeps.store import Store
from sweeps.sweep import make_sweep
from wsss.errors import explained
from wsss.overrides import parse_assignments, replace_settings

DEFAULT_SOURCES = ["none", "random_walk", "masks"]


def headline(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="labels to train on, one network each: none (plain CAM) | crf | pamr | "
            "random_walk | random_walk_crf | masks (supervised bound); default: none, "
            "random_walk, masks",
            metavar="[LABELS...]",
        ),
    ] = None,
    cell: Annotated[
        str, typer.Option(help="table cell whose configuration the CAMs come from")
    ] = "III[yes,yes]",
    preset: Annotated[str | None, typer.Option(help="tiny | short | paper")] = None,
    data: Annotated[
        str, typer.Option(help="folder in VOC layout; `drawn` draws a small data set first")
    ] = "drawn",
    weights: Annotated[
        str | None, typer.Option(help="imagenet | none | state dict file of the backbone")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="replace a setting of the CAM preset")
    ] = None,
    label_settings: Annotated[
        list[str] | None,
        typer.Option("--set-labels", help="replace a label setting, e.g. crf.preset=psa"),
    ] = None,
    segmentation_settings: Annotated[
        list[str] | None,
        typer.Option("--set-segmentation", help="replace a DeepLab setting, e.g. iterations=2000"),
    ] = None,
    eval_split: Annotated[str, typer.Option(help="split to segment and score")] = "val",
    store: Annotated[
        Path, typer.Option("--store", envvar="WSSS_STORE", help="folder that keeps all results")
    ] = Path("results"),
    workers: Annotated[int, typer.Option(min=1, help="processes that refine labels")] = max(
        1, (os.cpu_count() or 2) // 2
    ),
) -> None:
    """Train segmentation networks on refined pseudo-labels: Tables I and II.

    CAM -> refined label maps -> DeepLabv2 -> mIoU and IoU per class, beside the paper's rows. Each
    stage is kept in the store: give the command again to go on after an interruption, or with other
    labels or settings, and only what depends on them is done anew.
    """
    from sweeps.headline import make_headline, one_at_a_time, print_headline
    from sweeps.headline_run import run_headline
    from wsss.segmentation_config import PseudoLabelConfig
    from wsss.segmentation_presets import DEEPLAB_PRESETS

    with explained():
        root = Path(data)
        if data == "drawn":
            from wsss.data.drawn import draw_voc

            root = Path("data/drawn")
            draw_voc(root)
        chosen = preset or ("tiny" if data == "drawn" else "short")
        sweep, _ = make_sweep(
            [cell.split("[")[0]],
            preset=chosen,
            data=root,
            weights=weights,
            num_seeds=1,
            overrides=parse_assignments(settings or []),
        )
        network = sweep.base.network.weights
        segmentation = replace_settings(
            DEEPLAB_PRESETS[chosen],
            {"weights": network} | parse_assignments(segmentation_settings or []),
        )
        labels = replace_settings(PseudoLabelConfig(), parse_assignments(label_settings or []))
        planned = make_headline(
            sweep, cell, sources or DEFAULT_SOURCES, labels, segmentation, eval_split
        )
        results, console = Store(store), Console()
        results.check_writable()
        try:
            with one_at_a_time(results):
                run_headline(planned, results, console, workers=workers)
        except KeyboardInterrupt:
            console.print(Text("interrupted; give the same command again to go on from here"))
            sys.exit(130)
        print_headline(console, planned, results)
