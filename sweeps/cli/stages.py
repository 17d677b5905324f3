"""The commands train-cam, infer, evaluate and pseudo-label: one stage of the method at a time.

Heavy packages are imported by the functions that need them, so that `wsss --help` answers at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsss.errors import explained
from wsss.training_options import CheckpointMinutes, LoaderWorkers, MicroBatch, execution

if TYPE_CHECKING:
    from sweeps.cli.run_folder import Run
    from sweeps.stages.stage import Crew, Place, Record

Data = Annotated[Path, typer.Option(help="folder in VOC layout: JPEGImages, ImageSets, ...")]
RunDir = Annotated[Path, typer.Option("--run", help="folder of a training: config and checkpoints")]


def train_cam(
    run: RunDir,
    data: Data,
    preset: Annotated[str, typer.Option(help="tiny | short | paper | irn")] = "short",
    recipe: Annotated[
        str, typer.Option(help="default | literal | irn | seam | puzzle_cam, over the preset")
    ] = "default",
    config: Annotated[Path | None, typer.Option(help="YAML file of settings")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a setting, e.g. --set train.lr=0.01")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="imagenet_v1 | imagenet_v2 | none | state dict file")
    ] = None,
    loader_workers: LoaderWorkers = None,
    micro_batch: MicroBatch = "auto",
    checkpoint_minutes: CheckpointMinutes = 10.0,
    warns_after: Annotated[
        int,
        typer.Option(
            "--prior-warns-after", min=0, metavar="N",
            help="warn if, after N iterations, it is still no better than the label frequencies; "
            "0: never",
        ),
    ] = 100,
    fails_after: Annotated[
        int,
        typer.Option(
            "--prior-fails-after", min=0, metavar="N",
            help="end with an error if it is so after N iterations; 0: never",
        ),
    ] = 500,
) -> None:  # fmt: skip
    """Train a CAM network; given again, it continues from its last checkpoint."""
    with explained():
        from sweeps.stages.stage import Conduct, complete
        from sweeps.stages.train_cam import TrainCam
        from wsss.segmentation_config import PseudoLabelConfig
        from wsss.training.prior import PriorLimits

        how = execution(loader_workers, micro_batch, checkpoint_minutes)
        chosen = _configure(run, data, preset, recipe, config, settings, weights)
        chosen.remember()
        limits = PriorLimits(warns_after, fails_after)
        place = chosen.place(
            chosen.chain(PseudoLabelConfig()), execution=how,
            conduct=Conduct(accept_changes=True, limits=limits),
        )  # fmt: skip
        warned = False
        for record in complete(TrainCam(chosen.config), place):
            warned = _print_epoch(record, chosen.config.train.epochs, warned=warned)
        print(f"{run}: trained; now: wsss infer --run {run}")


def infer(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of CAM files; default: RUN/cams")] = None,
) -> None:
    """Write multi-scale CAMs as <id>.npz: `classes` [P], `cams` [P, H, W] in [0, 1]."""
    with explained():
        from sweeps.cli.run_folder import recall
        from sweeps.stages.labels import InferCams
        from wsss.segmentation_config import PseudoLabelConfig

        known = recall(run)
        chain = known.chain(PseudoLabelConfig())
        place = known.place(chain, cams=out)
        _refuse_unfinished(known, place)
        stage = InferCams(chain, split or known.config.data.eval_split)
        new = len(stage.missing(place))
        _complete(stage, place)
        print(f"{out or run / 'cams'}: CAMs of {len(stage.image_ids(place))} images ({new} new)")


def evaluate(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    cams: Annotated[
        Path | None, typer.Option(help="folder of CAM files; default: RUN/cams")
    ] = None,
) -> None:
    """Score CAM files against pixel masks: mIoU at the fixed and at the best threshold."""
    with explained():
        from sweeps.cli.run_folder import recall
        from wsss.data.voc import VocDataset
        from wsss.evaluation.auc import area_under_curve
        from wsss.evaluation.confusion import collect, threshold_grid
        from wsss.evaluation.score import score_counts
        from wsss.segmentation_config import PseudoLabelConfig

        known = recall(run)
        config, chain = known.config, known.chain(PseudoLabelConfig())
        # Refuses files which say that they are of another network.
        folder = known.place(chain, cams=cams).store.folder(f"maps/{chain.maps_id}").path
        dataset = VocDataset(known.data)
        thresholds = threshold_grid(config.labels.background_score)
        ids = dataset.image_ids(split or config.data.eval_split)
        images = [_counted(folder, run, dataset, image_id, thresholds) for image_id in ids]
        counts = collect(images, thresholds, len(dataset.classes) + 1)
        score = score_counts(counts, config.labels)
        print(f"{len(images)} images of {dataset.root}")
        print(f"mIoU {score.miou_fixed:.2f} % at the fixed threshold {score.fixed_threshold:g}")
        print(
            f"mIoU {score.miou_best:.2f} % at the best threshold {score.best_threshold:g} "
            "(chosen with pixel ground truth)"
        )
        low, high = config.labels.threshold_range
        area = area_under_curve(score.curve, config.labels)
        print(f"mIoU {area:.2f} % on average over thresholds {low:g} to {high:g} (AUC)")
        for name, value in zip(("background", *dataset.classes), score.iou_fixed, strict=True):
            if value is not None:
                print(f"  {name:14} {value:6.2f}")


def pseudo_label(
    run: Annotated[
        Path, typer.Option("--run", help="folder of a finished training: config and checkpoints")
    ],
    refinement: Annotated[
        str, typer.Option(help="none | crf | pamr | random_walk | random_walk_crf")
    ] = "none",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="a label setting, e.g. background_score=0.3, background=confident, crf.preset=psa",
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="default: the split trained on")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of labels; default: RUN/pseudo_labels/REFINEMENT")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes that refine labels")] = 1,
    address: Annotated[
        str | None,
        typer.Option(help="share the images among Ray tasks of this cluster; `local` starts one"),
    ] = None,
    cpus: Annotated[float, typer.Option(min=0.1, help="CPUs per Ray task")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per Ray task, e.g. 0.5")] = 0.0,
    loader_workers: LoaderWorkers = None,
    micro_batch: MicroBatch = "auto",
    checkpoint_minutes: CheckpointMinutes = 10.0,
) -> None:
    """Write palette PNGs of pseudo-labels at image size, and score them before and after.

    CAMs -> (learned affinity -> random walk) -> background by a fixed score, or by IRN's confident
    pair with 255 between -> (dense CRF or PAMR). Given again, it goes on with what is missing.
    """
    with explained():
        from sweeps.cli.run_folder import recall
        from sweeps.stages.labels import WriteLabels
        from wsss.overrides import parse_assignments, replace_settings
        from wsss.segmentation_config import PseudoLabelConfig

        how = execution(loader_workers, micro_batch, checkpoint_minutes)
        known = recall(run)
        chosen = {"refinement": refinement} | parse_assignments(settings or [])
        labels = replace_settings(PseudoLabelConfig(), chosen)
        plain = replace_settings(labels, {"refinement": "none"})
        found: dict[str, Any] = {}
        with _crew(workers, address, cpus, gpus) as crew:
            for each in [plain, labels] if refinement != "none" else [labels]:
                chain = known.chain(each, split)
                own = run / "pseudo_labels" / each.refinement
                target = out if out and each == labels else own
                place = known.place(chain, crew=crew, execution=how, labels=target)
                _refuse_unfinished(known, place)
                stage = WriteLabels(chain)
                _complete(stage, place)
                result = place.result(stage)
                found[each.refinement] = result["score"]
                print(f"{target / 'png'}: {result['num_images']} label maps")
        for name, score in found.items():
            if score is None:
                print("not scored: `confident` labels leave pixels out")
            else:
                print(f"{name}: mIoU {score['miou']:.2f} % on {score['num_images']} images")


def _configure(
    run: Path, data: Path, preset: str, recipe: str, config: Path | None,
    settings: list[str] | None, weights: str | None,
) -> "Run":  # fmt: skip
    """Return the training that the options name, its data set checked and named by its content."""
    from sweeps.cli.run_folder import Run
    from sweeps.plan.sweep import data_settings
    from wsss.data.check import check_data_once
    from wsss.data.voc import VocDataset
    from wsss.overrides import apply_overrides, parse_assignments, read_config_file
    from wsss.recipes import named_config, with_recipe
    from wsss.weights import resolve_weights

    dataset = VocDataset(data.absolute())
    base = named_config(with_recipe(preset, recipe))
    name, weights_file = resolve_weights(weights, base.network.weights)
    overrides = read_config_file(config) if config else {}
    overrides |= {"network.weights": name} | parse_assignments(settings or [])
    chosen = apply_overrides(base, overrides)
    train, scored = chosen.data.train_split, chosen.data.eval_split
    report = check_data_once(dataset, sorted({train, scored}))
    report.raise_if_broken()
    chosen = apply_overrides(chosen, data_settings(report, data, train))
    return Run(run, chosen, dataset.root, weights_file)


def _print_epoch(record: "Record", epochs: int, *, warned: bool) -> bool:
    """Print a line of an epoch or warning; return whether dead maps are warned of by now."""
    from sweeps.stages.training_warnings import dead_from_record, from_record, without_warnings

    if warning := from_record(record.numbers):
        print(f"warning: {warning}", flush=True)
        return warned
    shown = without_warnings(record.numbers)
    numbers = " ".join(f"{key} {value:.4g}" for key, value in shown.items())
    print(f"{numbers} of {epochs} epochs", flush=True)
    dead = dead_from_record(record.numbers)
    if dead and not warned:
        print(f"warning: {dead}", flush=True)
    return dead is not None


def _complete(stage: Any, place: "Place") -> None:
    """Complete a stage, with a bar of progress for it and for each that it needs."""
    from rich.progress import Progress

    from sweeps.stages.stage import complete

    with Progress() as bars:
        tasks: dict[str, Any] = {}
        for record in complete(stage, place):
            title = record.stage.title
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=1.0)
            bars.update(tasks[title], completed=record.progress)


def _refuse_unfinished(run: "Run", place: "Place") -> None:
    """Raise ConfigError if the network is not trained to its end, before anything is written."""
    from sweeps.stages.train_cam import TrainCam
    from wsss.overrides import ConfigError
    from wsss.training.checkpoint_names import epochs_of

    stage = TrainCam(run.config)
    if not stage.is_done(place):
        names = place.store.folder(stage.rel).checkpoint_names()
        raise ConfigError(
            f"{run.folder}: {epochs_of(names[-1]) if names else 0} of {run.config.train.epochs} "
            "epochs trained; finish with the same `wsss train-cam` command"
        )


@contextmanager
def _crew(workers: int, address: str | None, cpus: float, gpus: float) -> Iterator["Crew"]:
    """This process and `workers` more, or the Ray cluster at an address; `local` starts one."""
    if address is None:
        from sweeps.stages.stage import Here

        yield Here(workers)
        return
    from sweeps.run.resources import Resources, running_ray

    joined = None if address == "local" else address
    resources = Resources(joined, workers=0, cpus=cpus, gpus=gpus)
    with running_ray(resources):
        from sweeps.run.crew import Cluster

        yield Cluster(resources)


def _counted(folder: Path, run: Path, dataset: Any, image_id: str, thresholds: Any) -> Any:
    """Count a file of CAMs against its image's mask. Raises DataError for one that is not right."""
    from wsss.data.voc import DataError
    from wsss.evaluation.confusion import count_image
    from wsss.labels.cam_files import read_cams

    path = folder / f"{image_id}.npz"
    if not path.exists():
        raise DataError(f"{path}: missing; write it with: wsss infer --run {run}")
    maps, classes = read_cams(path)
    mask = dataset.mask(image_id)
    require_fitting(path, maps, classes, mask.shape, len(dataset.classes))
    return image_id, *count_image(maps, classes, mask, thresholds, len(dataset.classes) + 1)


def require_fitting(
    path: Path, maps: Any, classes: tuple[int, ...], size: tuple[int, ...], num_classes: int
) -> None:
    """Raise DataError unless maps [P, H, W] in [0, 1] are of this image and of its P classes."""
    from wsss.data.voc import DataError

    if maps.shape != (len(classes), *size) or not classes:
        fault = f"maps {maps.shape} of {len(classes)} classes, its image is {size}"
    elif len(set(classes)) < len(classes) or not set(classes) <= set(range(num_classes)):
        fault = f"classes {list(classes)[:9]}, expected different ones of 0..{num_classes - 1}"
    elif not (maps.min() >= 0 and maps.max() <= 1):  # false for NaN, too
        fault = "a value is not between 0 and 1"
    else:
        return
    raise DataError(f"{path}: {fault}; delete it to infer again")
