"""The commands train-cam, infer, evaluate and pseudo-label: one stage of the method at a time.

Heavy packages are imported by the functions that need them, so that `wsss --help` answers at once.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import (
    Cpus,
    Gpus,
    Recipe,
    Set,
    Weights,
    call,
    execution,
    prior_limits,
    refuse_idle,
    say_idle,
    with_options_of,
)
from wsss.basics.printable import command, counted

if TYPE_CHECKING:
    from sweeps.cli.method.run_folder import Run
    from sweeps.plan.chains.chain import ChainConfig
    from sweeps.run.ray.resources import Resources
    from sweeps.stages.labels import InferCams
    from sweeps.stages.stage import Crew, Place, Record, Stage
    from wsss.config import LabelsConfig
    from wsss.evaluation.score import Score
    from wsss.evaluation.segmentation_score import SegmentationScore
    from wsss.labels.cam_files import CamFile
    from wsss.segmentation_config import PseudoLabelConfig

Data = Annotated[Path, typer.Option(help="folder in VOC layout: JPEGImages, ImageSets, ...")]
RunDir = Annotated[
    Path,
    typer.Option("--run", file_okay=False, help="folder of a training: config and checkpoints"),
]


def configured(
    run: RunDir,
    data: Data,
    preset: Annotated[str, typer.Option(help="tiny | short | paper | irn")] = "short",
    recipe: Recipe = "default",
    config: Annotated[Path | None, typer.Option(help="YAML, JSON or TOML file of settings")] = None,
    settings: Set = None,
    weights: Weights = None,
) -> "Run":
    """Return the training that these options describe, after a check of its data set."""
    from sweeps.cli.method.run_folder import Run
    from sweeps.plan.sweep import checked_data
    from wsss.data.check import require_batch
    from wsss.data.voc import VocDataset
    from wsss.identity import run_id
    from wsss.labels.sources import sources_of
    from wsss.networks.initial_weights import check_initial_weights
    from wsss.overrides import parse_assignments, settle
    from wsss.recipes import named_config, with_recipe

    start, given = named_config(with_recipe(preset, recipe)), parse_assignments(settings or [])
    settled = settle(start, given, weights=weights, file=config)
    report, chosen = checked_data(settled, data, only_trains=True)
    trained = chosen.data.train_split
    require_batch(report.num_images[trained], chosen.train.batch_size)
    check_initial_weights([chosen.network], settled.weights_file)
    say_idle(given, [chosen], run_id)
    dataset = VocDataset(data.absolute())
    trained_on = sources_of(dataset, dataset.image_ids(trained))
    return Run(
        folder=run,
        config=chosen,
        data=dataset.root,
        weights_file=settled.weights_file,
        classes=dataset.classes,
        trained_on=trained_on,
    )


@with_options_of(configured, execution, prior_limits)
def train_cam(**given: Any) -> None:
    """Train a CAM network. Run it again to continue from its last checkpoint."""
    from sweeps.stages.stage import Conduct
    from sweeps.stages.train_cam import TrainCam
    from wsss.segmentation_config import PseudoLabelConfig

    how = call(execution, given)
    chosen = call(configured, given)
    chosen.remember()
    place = chosen.place(
        chosen.chain(PseudoLabelConfig()),
        execution=how,
        conduct=Conduct(accept_changes=True, limits=call(prior_limits, given)),
    )
    warned = False
    for record in _records(TrainCam(chosen.config), place):
        warned = _print_epoch(record, chosen.config.train.epochs, warned=warned)
    print(f"{chosen.folder}: trained; next: {command('wsss', 'infer', '--run', chosen.folder)}")


def infer(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder of CAM files; default: RUN/cams")
    ] = None,
) -> None:
    """Write multi-scale CAMs as <id>.npz: `classes` [P], `cams` [P, H, W] in [0, 1]."""
    from sweeps.cli.method.run_folder import recall
    from sweeps.stages.labels import InferCams
    from wsss.data.voc import VocDataset
    from wsss.segmentation_config import PseudoLabelConfig

    known = recall(run)
    split = split or known.config.data.eval_split
    chain, known = known.chain(PseudoLabelConfig()), known.with_images(split)
    place = known.place(chain, cams=out)
    _refuse_unfinished(known, place)
    stage = InferCams(chain, split)
    new = len(stage.missing(place))
    _complete(stage, place)
    images = counted(len(stage.image_ids(place)), "image")
    print(f"{out or run / 'cams'}: CAMs of {images} ({new} new)")
    words: list[object] = ["--split", split] if split != known.config.data.eval_split else []
    words += ["--cams", out] if out else []
    if VocDataset(known.data).has_masks():
        print(f"next: {command('wsss', 'evaluate', '--run', run, *words)}")
    else:
        print(f"next: {command('wsss', 'pseudo-label', '--run', run)}")


def evaluate(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    cams: Annotated[
        Path | None, typer.Option(file_okay=False, help="folder of CAM files; default: RUN/cams")
    ] = None,
) -> None:
    """Score CAM files against pixel masks: mIoU at the fixed and at the best threshold."""
    from sweeps.cli.method.run_folder import recall
    from sweeps.stages.labels import InferCams
    from wsss.data.pictures.mask import require_size
    from wsss.data.voc import VocDataset
    from wsss.evaluation.confusion import collect, count_image, threshold_grid
    from wsss.evaluation.score import score_counts
    from wsss.labels.cam_files import require_fitting
    from wsss.segmentation_config import PseudoLabelConfig

    known = recall(run)
    labels, split = known.config.labels, split or known.config.data.eval_split
    chain, dataset = known.chain(PseudoLabelConfig()), VocDataset(known.data)
    place = known.with_images(split).place(chain, cams=cams)
    stage = InferCams(chain, split)
    again = ["infer", "--run", run, "--split", split]
    thresholds, num_classes = threshold_grid(labels.background_score), len(dataset.classes)
    images, unknown = [], 0
    for image_id in stage.image_ids(place):
        found, mask = _own_cams(stage, place, image_id, again, cams), dataset.mask(image_id)
        require_size(dataset.mask_path(image_id), mask, dataset.image_size(image_id))
        require_fitting(found, mask.shape, num_classes)
        pixels = count_image(found.cams, found.classes, mask, thresholds, num_classes + 1)
        images.append((image_id, *pixels))
        unknown += not found.source
    print(f"{counted(len(images), 'image')} of {dataset.root}")
    if unknown:
        print(f"note: {unknown} of these CAM files do not say what they were made from")
    score = score_counts(collect(images, thresholds, num_classes + 1), labels)
    _print_score(score, labels, dataset.classes)
    print(f"next: {command('wsss', 'pseudo-label', '--run', run)}")


@with_options_of(execution)
def pseudo_label(
    ctx: typer.Context,
    run: RunDir,
    refinement: Annotated[
        str | None, typer.Option(help="none (default) | crf | pamr | random_walk | random_walk_crf")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="a label setting, e.g. background_score=0.3, background=confident, crf.preset=psa",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="default: the split trained on")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="folder of labels; default: RUN/pseudo_labels/REFINEMENT"
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="processes that refine labels without Ray")
    ] = 1,
    address: Annotated[
        str | None,
        typer.Option(help="share the images among Ray tasks of this cluster; `local` starts one"),
    ] = None,
    cpus: Cpus = 1.0,
    gpus: Gpus = 0.0,
    **given: Any,
) -> None:
    """Write palette PNGs of pseudo-labels at image size, and score them before and after.

    CAMs -> (learned affinity -> random walk) -> background by a fixed score, or by IRN's confident
    pair with 255 between -> (dense CRF or PAMR). Run it again to do only what is missing.
    """
    if address is None:
        refuse_idle("without --address", ctx, "cpus", "gpus")
    else:
        refuse_idle("with --address, whose tasks refine labels", ctx, "workers")
    resources = _resources(address, cpus, gpus)
    from sweeps.cli.method.run_folder import recall
    from sweeps.stages.labels import WriteLabels, label_score
    from sweeps.stages.segmentation import require_packages
    from wsss.overrides import apply_overrides, parse_assignments
    from wsss.segmentation_config import PseudoLabelConfig

    how = call(execution, given)
    known = recall(run)
    known = known.with_images(split or known.config.data.train_split)
    words = [f"refinement={refinement}"] if refinement is not None else []
    asked = parse_assignments([*words, *(settings or [])])
    labels, own = apply_overrides(PseudoLabelConfig(), asked), run / "pseudo_labels"
    wanted = [(labels, out or own / labels.refinement)]
    if labels.refinement != "none":
        wanted.insert(0, (labels.model_copy(update={"refinement": "none"}), own / "none"))
    chain = known.chain(labels, split)
    _check_labels(known, chain, labels, asked)
    if resources is None:
        require_packages(chain, known.place(chain, labels=wanted[-1][1]))
    found: dict[str, SegmentationScore | None] = {}
    with _crew(workers, resources) as crew:
        for each, folder in wanted:
            chain = known.chain(each, split)
            place = known.place(chain, crew=crew, execution=how, labels=folder)
            _refuse_unfinished(known, place)
            stage = WriteLabels(chain)
            _complete(stage, place)
            found[each.refinement] = label_score(chain, place)
            maps = counted(place.result(stage)["num_images"], "label map")
            print(f"{folder / 'png'}: {maps}")
    for name, score in found.items():
        print(f"{name}: {_told(score, labels, known)}")


def _check_labels(
    known: "Run", chain: "ChainConfig", labels: "PseudoLabelConfig", asked: Iterable[str]
) -> None:
    """Say which settings have no effect. Raises DataError if a walk has too few images."""
    from wsss.data.check import require_batch
    from wsss.data.voc import VocDataset

    say_idle(asked, [labels], lambda each: chain.model_copy(update={"labels": each}).labels_id)
    if labels.walks:
        require_batch(
            len(VocDataset(known.data).image_ids(chain.label_split)),
            labels.random_walk.batch_size,
            setting="--set random_walk.batch_size",
        )


def _print_epoch(record: "Record", epochs: int, *, warned: bool) -> bool:
    """Print an epoch or a warning; return whether dead maps have been warned of."""
    numbers = dict(record.numbers)
    if "warning" in numbers:
        print(f"warning: {numbers['warning']}", flush=True)
        return warned
    dead = numbers.pop("dead_maps", None)
    epoch = f"epoch {numbers.pop('epoch'):.0f} of {epochs}"
    print(epoch, *(f"{key} {value:.4g}" for key, value in numbers.items()), flush=True)
    if dead and not warned:
        print(f"warning: {dead}", flush=True)
    return dead is not None


def _records(stage: "Stage", place: "Place") -> "Iterator[Record]":
    """Complete a stage. The first signal ends it once it has saved what it has, a second at once.

    Either signal is raised again at the end, for the program.
    """
    from sweeps.run.signals import Interrupts
    from sweeps.stages.stage import complete

    interrupts = Interrupts()
    try:
        with interrupts:
            asked = replace(place, is_ending=lambda: interrupts.requested is not None)
            yield from complete(stage, asked)
    finally:
        if interrupts.requested:
            signal.raise_signal(signal.Signals[interrupts.requested])


def _complete(stage: "Stage", place: "Place") -> None:
    """Complete a stage, with a progress bar for it and for each stage that it needs."""
    from rich.progress import Progress

    bars, tasks = Progress(), dict[str, Any]()
    with ExitStack() as shown:
        for record in _records(stage, place):
            title = record.stage.title
            if not tasks:
                shown.enter_context(bars)  # without a bar it prints an empty line
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=1.0)
            bars.update(tasks[title], completed=record.progress)


def _refuse_unfinished(run: "Run", place: "Place") -> None:
    """Raise ConfigError if the network's training is not finished."""
    from sweeps.stages.train_cam import TrainCam
    from wsss.overrides import ConfigError
    from wsss.training.checkpoint_names import epochs_of

    stage = TrainCam(run.config)
    if not stage.is_done(place):
        names = place.store.folder(stage.rel).checkpoint_names()
        whole = counted(run.config.train.epochs, "epoch")
        raise ConfigError(
            f"{run.folder}: {epochs_of(names[-1]) if names else 0} of {whole} trained; finish it "
            f"with: {run.training_command()}"
        )


def _resources(address: str | None, cpus: float, gpus: float) -> "Resources | None":
    """Return what tasks may use of the Ray cluster at an address; `local` starts one.

    None without an address. Raises ClusterError if it cannot be joined.
    """
    if address is None:
        return None
    from sweeps.run.ray.resources import Resources

    joined = None if address == "local" else address
    resources = Resources(joined, workers=0, cpus=cpus, gpus=gpus)
    resources.require_cluster()
    return resources


@contextmanager
def _crew(workers: int, resources: "Resources | None") -> Iterator["Crew"]:
    """Yield this process and `workers` more, or a Ray cluster."""
    if resources is None:
        from sweeps.stages.stage import Crew

        yield Crew(workers)
        return
    from sweeps.run.ray.start import running_ray

    with running_ray(resources):
        from sweeps.run.ray.crew import Cluster

        yield Cluster(resources)


def _own_cams(
    stage: "InferCams", place: "Place", image_id: str, again: Sequence[object], cams: Path | None
) -> "CamFile":
    """Read an image's CAMs. Raises DataError if they are missing, broken or made from other data.

    again: the `wsss` command that infers into the training's own folder; cams: the folder to read
    instead.
    """
    from wsss.data.errors import DataError
    from wsss.labels.cam_files import read_cams

    path = place.store.folder(stage.images_rel).path / f"{image_id}{stage.suffix}"
    if not path.exists():
        write = command("wsss", *again, *(["--out", cams] if cams else []))
        raise DataError(f"{path}: missing; write it with: {write}")
    found = read_cams(path)
    if found.source not in ("", stage.source(place, image_id)):
        other = " --out OTHER, and evaluate with --cams OTHER" if cams else ""
        raise DataError(
            f"{path}: made by another network, or before its picture or labels were changed; "
            f"infer again: {command('wsss', *again)}{other}"
        )
    return found


def _print_score(score: "Score", labels: "LabelsConfig", classes: tuple[str, ...]) -> None:
    from wsss.evaluation.auc import area_under_curve

    print(f"mIoU {score.miou_fixed:.2f} % at the fixed threshold {score.fixed_threshold:g}")
    print(
        f"mIoU {score.miou_best:.2f} % at the best threshold {score.best_threshold:g} "
        "(chosen with pixel ground truth)"
    )
    low, high = labels.threshold_range
    area = area_under_curve(score.curve, labels)
    print(f"mIoU {area:.2f} % on average over thresholds {low:g} to {high:g} (AUC)")
    print(f"IoU at the fixed threshold; mIoU is the mean over {_of_labels(score.iou_fixed)}:")
    for name, value in zip(("background", *classes), score.iou_fixed, strict=True):
        print(f"  {name:14} {'absent' if value is None else f'{value:.2f}':>6}")


def _told(score: "SegmentationScore | None", labels: "PseudoLabelConfig", run: "Run") -> str:
    """Return the score of label maps in words, or why they are not scored."""
    from wsss.data.voc import VocDataset

    if score:
        over = _of_labels(list(score.iou.values()))
        return f"mIoU {score.miou:.2f} % on {counted(score.num_images, 'image')}, over {over}"
    if not VocDataset(run.data).has_masks():
        return "not scored, as the data set has no masks"
    if labels.background == "fixed":
        return f"not scored, as none of these images is in the split {run.config.data.eval_split}"
    return "not scored, as `confident` labels leave pixels out"


def _of_labels(ious: list[float | None]) -> str:
    """Say over how many labels a mean is taken: absent labels have no IoU."""
    absent = ious.count(None)
    note = f", as {absent} are in no mask and no label map" if absent else ""
    return f"{len(ious) - absent} of {len(ious)} labels{note}"
