"""The commands train-cam, infer and evaluate: the stages from a training to its score."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from wsss.errors import explained
from wsss.training_options import CheckpointMinutes, LoaderWorkers, MicroBatch, execution

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
        from wsss.data.check import check_data
        from wsss.data.voc import VocDataset
        from wsss.run_folder import remember
        from wsss.training import cam
        from wsss.training.checkpoint import CheckpointFolder
        from wsss.training.dead_maps import find_dead_maps
        from wsss.training.prior import PriorLimits, PriorWarning
        from wsss.training.process import Process, pick_device

        how = execution(loader_workers, micro_batch, checkpoint_minutes)
        dataset = VocDataset(data)
        chosen, weights_file = _configure(preset, recipe, config, settings, weights)
        report = check_data(dataset, sorted({chosen.data.train_split, chosen.data.eval_split}))
        report.raise_if_broken()
        remember(run, chosen, data, weights_file)
        samples = dataset.samples(chosen.data.train_split)
        num_classes = len(dataset.classes)
        model = cam.build_cam_net(chosen, samples, num_classes, weights_file=weights_file)
        epochs: list[dict[str, Any]] = []
        warned = False
        for record in cam.train_cam(
            model, chosen, samples, num_classes, process=Process(device=pick_device()),
            checkpoints=CheckpointFolder(run / "checkpoints"), execution=how,
            limits=PriorLimits(warns_after, fails_after),
        ):  # fmt: skip
            if isinstance(record, PriorWarning):
                print(f"warning: {record}", flush=True)
                continue
            numbers = " ".join(f"{key} {value:.4g}" for key, value in record.metrics().items())
            print(f"{numbers} of {chosen.train.epochs} epochs", flush=True)
            epochs.append(asdict(record))
            dead = find_dead_maps(epochs, chosen)
            if dead and not warned:
                print(f"warning: {dead}", flush=True)
            warned = dead is not None
        print(f"{run}: trained; now: wsss infer --run {run}")


def infer(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of CAM files; default: RUN/cams")] = None,
) -> None:
    """Write multi-scale CAMs as <id>.npz: `classes` [P], `cams` [P, H, W] in [0, 1]."""
    with explained():
        from rich.progress import track

        from wsss.labels.cam_files import write_cams
        from wsss.labels.infer import infer_cams
        from wsss.run_folder import trained
        from wsss.training.process import pick_device

        config, dataset, model = trained(run)
        samples = dataset.samples(split or config.data.eval_split)
        folder = out or run / "cams"
        todo = [s for s in samples if not (folder / f"{s.image_id}.npz").exists()]
        cams = infer_cams(model, todo, config.labels, device=pick_device())
        for image in track(cams, total=len(todo), description="infer"):
            path = folder / f"{image.sample.image_id}.npz"
            write_cams(path, image.cams, image.sample.labels)
        print(f"{folder}: CAMs of {len(samples)} images ({len(todo)} new)")


def evaluate(
    run: RunDir,
    split: Annotated[str | None, typer.Option(help="default: the configured eval split")] = None,
    cams: Annotated[
        Path | None, typer.Option(help="folder of CAM files; default: RUN/cams")
    ] = None,
) -> None:
    """Score CAM files against pixel masks: mIoU at the fixed and at the best threshold."""
    with explained():
        from wsss.data.voc import DataError, VocDataset
        from wsss.evaluation.auc import area_under_curve
        from wsss.evaluation.confusion import collect, count_image, threshold_grid
        from wsss.evaluation.score import score_counts
        from wsss.labels.cam_files import read_cams
        from wsss.run_folder import recall

        config, saved = recall(run)
        dataset = VocDataset(Path(saved["data"]))
        thresholds = threshold_grid(config.labels.background_score)
        num_labels, images = len(dataset.classes) + 1, []
        for image_id in dataset.image_ids(split or config.data.eval_split):
            path = (cams or run / "cams") / f"{image_id}.npz"
            if not path.exists():
                raise DataError(f"{path}: missing; write it with: wsss infer --run {run}")
            maps, classes = read_cams(path)
            mask = dataset.mask(image_id)
            _require_fitting(path, maps, classes, mask.shape, len(dataset.classes))
            counted = count_image(maps, classes, mask, thresholds, num_labels)
            images.append((image_id, *counted))
        score = score_counts(collect(images, thresholds, num_labels), config.labels)
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


def _require_fitting(
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


def _configure(
    preset: str, recipe: str, config: Path | None, settings: list[str] | None, weights: str | None
) -> tuple[Any, Path | None]:
    from wsss.overrides import apply_overrides, parse_assignments, read_config_file
    from wsss.recipes import named_config, with_recipe
    from wsss.weights import resolve_weights

    base = named_config(with_recipe(preset, recipe))
    name, weights_file = resolve_weights(weights, base.network.weights)
    overrides = read_config_file(config) if config else {}
    overrides |= {"network.weights": name} | parse_assignments(settings or [])
    return apply_overrides(base, overrides), weights_file
