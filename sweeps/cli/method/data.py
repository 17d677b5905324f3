"""The commands `wsss data ...`: a data set in VOC layout, prepared, imported, drawn or checked."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sweeps.cli.program import Command, Program
from wsss.basics.printable import command, one_line
from wsss.data.drawn.folder import DRAWN, draw_voc
from wsss.data.errors import DataError

if TYPE_CHECKING:
    from wsss.data.report import DataReport, MaskCounts
    from wsss.data.voc import VocDataset

data_app = typer.Typer(
    cls=Program, no_args_is_help=True, help="Get, import, draw or check a data set in VOC layout."
)

WITHOUT_MASKS = "test"
"""VOC's split whose masks stay on its server."""
MOST_DRAWN = 100_000
"""Images of a drawn split; more, which take half an hour, are a slip."""
SEGMENTED = "val"
"""The split that a headline segments by default: its images may be without a class."""
COLUMN = 18
"""Characters of a column of the printed page."""


@data_app.command(cls=Command)
def draw(
    root: Annotated[
        Path | None, typer.Argument(help="folder to write; default: data/ and its name")
    ] = None,
    name: Annotated[
        Literal["drawn", "drawn-glare", "drawn-dim"],
        typer.Option(help="drawn | drawn-glare | drawn-dim"),
    ] = "drawn",
    train: Annotated[int, typer.Option(min=1, max=MOST_DRAWN, help="images of train")] = 60,
    extra: Annotated[
        int, typer.Option(min=0, max=MOST_DRAWN, help="images of train_aug beyond train")
    ] = 100,
    val: Annotated[int, typer.Option(min=1, max=MOST_DRAWN, help="images of val")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="another seed gives other pictures")] = 0,
) -> None:
    """Draw a small data set in VOC layout; the same seed gives the same files."""
    path = draw_voc(
        root or Path("data") / name,
        kind=DRAWN[name],
        num_train=train,
        num_extra=extra,
        num_val=val,
        rng_seed=seed,
    )
    print(f"{path}: {train + extra + val} images")


@data_app.command(cls=Command)
def check(
    root: Annotated[Path | None, typer.Argument(help="folder in VOC layout")] = None,
    data: Annotated[Path | None, typer.Option(help="the same, as other commands take it")] = None,
    split: Annotated[list[str] | None, typer.Option(help="splits; default: all")] = None,
    scored: Annotated[
        list[str] | None,
        typer.Option(
            help="splits to be scored, whose images all need a mask; default: train, if the data "
            "set has masks"
        ),
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="decode every picture: finds truncated ones")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Name every missing, broken or contradictory file, count classes, and compare the splits.

    wsss data check --data /data/VOC2012 --decode
    """
    from wsss.data.voc import VocDataset

    if (root is None) == (data is None):
        raise DataError("give one data set: wsss data check --data FOLDER")
    dataset = VocDataset(root or data or Path())
    _check(dataset, split or [], scored or [], decode=decode, as_json=as_json)


def _check(
    dataset: "VocDataset", split: list[str], scored: list[str], *, decode: bool, as_json: bool
) -> None:
    """Check a data set and print its page. Raises DataError, or exits with 2, for problems."""
    from wsss.config import DataConfig
    from wsss.data.check import check_data
    from wsss.data.check_splits import compare_lists

    names = split or [name for name in dataset.split_names() if name != WITHOUT_MASKS]
    names = list(dict.fromkeys([*names, *scored]))
    if not names:
        other = dataset.elsewhere("ImageSets/Segmentation", "train")
        raise DataError(
            f"{dataset.root}: no lists in ImageSets/Segmentation{other}; write train.txt"
        )
    judged = scored or ([DataConfig().eval_split] if dataset.has_masks() else [])
    report = check_data(dataset, names, scored=judged, may_be_empty=[SEGMENTED], decode=decode)
    compare_lists(report, dataset, names if split else dataset.split_names())
    if as_json:
        print(json.dumps(report.model_dump(mode="json"), indent=2))
        raise typer.Exit(2 if report.problems else 0)
    print(page(report), flush=True)
    report.raise_if_broken()
    print("no problem found")


@data_app.command(cls=Command)
def prepare(
    root: Annotated[Path, typer.Argument(help="folder to write, e.g. /data/VOC2012")],
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
        Path | None,
        typer.Option(help="folder of downloaded archives; default: archives beside ROOT"),
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option(help="FILENAME=HEX, checked beside the known MD5; repeatable"),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="accept archives other than the official ones")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="processes that convert masks; default: one per CPU, up to 8")
    ] = min(8, os.cpu_count() or 1),
) -> None:
    """Make VOC 2012 with SBD's masks and train_aug from the public archives.

    wsss data prepare /data/VOC2012

    Run it again to do only what is missing.
    """
    from rich.console import Console
    from rich.progress import Progress

    from wsss.data.prepare.archives import PrepareRequest
    from wsss.data.prepare.assemble import prepare_voc

    local = {"voc": voc, "sbd": sbd, "test": test}
    request = PrepareRequest(
        root=root.resolve(),
        archives={step: path for step, path in local.items() if path},
        mirrors=tuple(mirror or ()),
        downloads=downloads,
        sha256=_digests(sha256 or []),
        with_test=with_test,
        allow_partial=allow_partial,
        num_workers=workers,
    )
    with Progress(console=Console(stderr=True)) as progress:
        print(prepare_voc(request, progress=progress).describe())


def _digests(pairs: list[str]) -> dict[str, str]:
    """Return file name -> digest. Raises DataError."""
    digests = {}
    for pair in pairs:
        name, equals, digest = pair.partition("=")
        if not (name and equals):
            raise DataError(f"--sha256 {pair}: expected FILENAME=HEX")
        digests[name] = digest
    return digests


@data_app.command("import", cls=Command)
def import_(
    source: Annotated[
        Path, typer.Argument(help="COCO's JSON, a CSV of labels, or a folder of class folders")
    ],
    dest: Annotated[Path, typer.Argument(help="folder to write")],
    images: Annotated[
        Path | None, typer.Option(help="folder of the pictures; default: where SOURCE lies")
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|SOURCE",
            help="share of the images for val, or a second source of val; default: 0.2, unless "
            "SOURCE has splits (a column `split`, folders train and val)",
        ),
    ] = None,
    masks: Annotated[
        bool, typer.Option("--masks", help="also write masks of COCO's segmentations")
    ] = False,
    copy: Annotated[
        bool, typer.Option("--copy", help="copy pictures; default: hard links where possible")
    ] = False,
    image_column: Annotated[
        str | None, typer.Option(help="column of a CSV that names the pictures")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="column of the labels")] = None,
    separator: Annotated[
        str | None,
        typer.Option(help="between labels in a field: ';', ',', space, or none for one label"),
    ] = None,
) -> None:
    """Make a data set in VOC layout from your pictures and labels, and check it.

    wsss data import photos.csv data/mine --images photos

    A CSV has a line of names and a row per image (x.jpg,dog;cat), a row per
    image and label, or a column of 0 and 1 per class. With --masks, crowds
    are 255 (ignored), and where objects overlap, the smaller is on top.
    What is left out, such as images without a label, is named.

    Run the same command again after a failure; if all is there, it checks.
    """
    from rich.console import Console
    from rich.progress import Progress

    from wsss.data.importing.foreign import TableOptions
    from wsss.data.importing.into_voc import ImportRequest, import_voc
    from wsss.data.voc import VocDataset

    request = ImportRequest(
        source=source,
        root=dest.resolve(),
        images=images,
        val=val,
        masks=masks,
        copy=copy,
        table=TableOptions(image_column, label_column, separator),
    )
    made, is_new = import_voc(request, progress=Progress(console=Console(stderr=True)))
    counts = ", ".join(f"{split} {count:,}" for split, count in made.num_images.items())
    print(f"{dest}: {'imported' if is_new else 'already there'} ({counts})")
    for note in made.notes:
        print(f"note: {one_line(note)}")
    dataset = VocDataset(dest)
    _check(dataset, [], [], decode=False, as_json=False)
    _print_next(dest, made.num_images["train_aug"], with_masks=dataset.has_masks())


def _print_next(data: Path, num_images: int, *, with_masks: bool) -> None:
    """Print the command to give next: plan a table, or without masks train without a score.

    Its batch is at most as large as the data set.
    """
    from wsss.presets import SHORT

    words = ["--data", data, "--preset", "short"]
    if num_images < SHORT.train.batch_size:
        words += ["--set", f"train.batch_size={num_images}"]
    plan = command("sweeps", "plan", "V", *words)
    train = command("wsss", "train-cam", "--run", f"runs/{data.name}", *words)
    print(
        "note: the next command downloads ImageNet weights once; without a network, add "
        "--weights none, or --weights FILE"
    )
    print(f"next: {plan if with_masks else train}")


def page(report: "DataReport") -> str:
    """Return the printed page: classes by split, the size of the splits, and notes."""
    lines = [f"{one_line(str(report.root))}  [{report.fingerprint}]", ""]
    if splits := report.num_images:
        counts = report.counts.values()
        lines.append("images by their labels; share of the scored pixels by masks")
        lines.append(_line("class", splits))
        for index, name in enumerate(report.classes):
            images = [per_class[index] for per_class in report.images_per_class.values()]
            if any(images):
                shares = [_share(c.pixels[index], c) for c in counts]
                lines.append(
                    _line(name, [f"{n:,}{s}" for n, s in zip(images, shares, strict=True)])
                )
        lines.append(_line("background", [_share(c.background_pixels, c) for c in counts]))
        lines.append(_line("images", splits.values()))
        lines.append(_line("with a mask", report.num_masks.values()))
        lines.append(_line("labels from masks", report.labels_from_mask.values()))
        lines.append(_line("pixels ignored", [c.ignored_pixels for c in counts]))
    official = [split for split, whole in report.official.items() if whole]
    lines += [f"VOC 2012's own list: {', '.join(official)}"] if official else []
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def _share(pixels: int, counts: "MaskCounts") -> str:
    scored = counts.background_pixels + sum(counts.pixels)
    return f" {100 * pixels / scored:6.2f} %" if scored else ""


def _line(name: str, cells: Iterable[int | str]) -> str:
    words = (cell if isinstance(cell, str) else f"{cell:,}" for cell in cells)
    return f"{name:>{COLUMN}}" + "".join(f"{word:>{COLUMN}}" for word in words)
