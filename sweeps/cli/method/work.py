"""What the commands of `wsss` for single stages do: they are completed, and their results told."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from sweeps.cli.method.run_folder import Run, recall
from sweeps.cli.options import say_idle
from sweeps.plan.chains.chain import ChainConfig
from sweeps.run.ray.resources import Resources
from sweeps.run.signals import Interrupts
from sweeps.stages.labels import InferCams
from sweeps.stages.stage import Crew, Place, Record, Stage, complete
from sweeps.stages.train_cam import TrainCam
from wsss.basics.printable import command, counted
from wsss.basics.progress import shown
from wsss.config import LabelsConfig
from wsss.data.check import require_batch
from wsss.data.errors import DataError
from wsss.data.pictures.mask import require_size
from wsss.data.voc import VocDataset
from wsss.evaluation.auc import area_under_curve
from wsss.evaluation.confusion import collect, count_image, threshold_grid
from wsss.evaluation.score import Score, score_counts
from wsss.evaluation.segmentation_score import SegmentationScore
from wsss.labels.cam_files import CamFile, read_cams, require_fitting
from wsss.overrides import ConfigError
from wsss.segmentation_config import PseudoLabelConfig
from wsss.training.checkpoint_names import epochs_of


def check_labels(
    known: Run, chain: ChainConfig, labels: PseudoLabelConfig, asked: Iterable[str]
) -> None:
    """Say which settings have no effect. Raises DataError if a walk has too few images."""
    say_idle(asked, [labels], lambda each: chain.model_copy(update={"labels": each}).labels_id)
    if labels.walks:
        require_batch(
            len(VocDataset(known.data).image_ids(chain.label_split)),
            labels.random_walk.batch_size,
            setting="--set random_walk.batch_size",
        )


def print_epoch(record: Record, epochs: int) -> None:
    """Print an epoch and whether its maps are dead, or a warning."""
    numbers = {key: value for key, value in record.numbers.items() if key != "iteration"}
    warning = numbers.get("warning") or numbers.pop("dead_maps", None)
    if "warning" not in numbers:
        epoch = f"epoch {numbers.pop('epoch'):.0f} of {epochs}"
        print(epoch, *(f"{key} {value:.4g}" for key, value in numbers.items()), flush=True)
    if warning:
        print(f"warning: {warning}", flush=True)


def records(stage: Stage, place: Place) -> Iterator[Record]:
    """Complete a stage. The first signal ends it once it has saved what it has, a second at once.

    Either signal is raised again at the end, for the program.
    """
    interrupts = Interrupts()
    try:
        with interrupts:
            asked = replace(place, is_ending=lambda: interrupts.requested is not None)
            yield from complete(stage, asked)
    finally:
        if interrupts.requested:
            signal.raise_signal(signal.Signals[interrupts.requested])


def complete_shown(stage: Stage, place: Place) -> int:
    """Complete a stage, with a progress bar for it and for each stage that it needs.

    Returns the number of its own records: of a stage with a file per image, that of new files.
    """
    bars, tasks, new = Progress(), dict[str, Any](), 0
    with ExitStack() as at_end:
        for record in records(stage, place):
            title = record.stage.title
            if not tasks:
                at_end.enter_context(bars)  # without a bar it prints an empty line
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=1.0)
            bars.update(tasks[title], completed=record.progress)
            new += record.stage == stage and record.progress > 0
    return new


def require_trained(run: Run, place: Place) -> None:
    """Raise ConfigError if the network's training is not finished."""
    stage = TrainCam(run.config)
    if not stage.is_done(place):
        folder, epochs = place.store.folder(stage.rel), counted(run.config.train.epochs, "epoch")
        names = [f"checkpoints/{name}" for name in folder.checkpoint_names()]
        whole = [name for name in names if folder.has_whole(name)]
        broken = "".join(f" ({name} is broken)" for name in names if name not in whole)
        raise ConfigError(
            f"{run.folder}: {epochs_of(whole[-1]) if whole else 0} of {epochs} trained{broken}; "
            f"finish it with: {run.training_command()}"
        )


def resources_at(address: str | None, cpus: float, gpus: float) -> Resources | None:
    """Return what tasks may use of the Ray cluster at an address; `local` starts one.

    None without an address. Raises ClusterError if it cannot be joined.
    """
    if address is None:
        return None
    joined = None if address == "local" else address
    resources = Resources(joined, workers=0, cpus=cpus, gpus=gpus)
    resources.require_cluster()
    return resources


@contextmanager
def crew_of(workers: int, resources: Resources | None) -> Iterator[Crew]:
    """Yield this process and `workers` more, or a Ray cluster."""
    if resources is None:
        yield Crew(workers)
        return
    from sweeps.run.ray.start import running_ray

    with running_ray(resources):
        from sweeps.run.ray.crew import Cluster

        yield Cluster(resources)


def write_cams(run: Path, split: str | None, out: Path | None) -> None:
    """Infer what lacks of a split's CAMs, by default the scored one's; print what comes next.

    out: the folder to write to instead of the training's own.
    """
    known = recall(run)
    scored = known.config.data.eval_split
    split = split or scored
    chain, known = known.chain(PseudoLabelConfig(), split), known.with_images(split)
    place, stage = known.place(chain, cams=out), InferCams(chain)
    require_trained(known, place)
    new = complete_shown(stage, place)
    images = counted(len(stage.image_ids(place)), "image")
    print(f"{out or run / 'cams'}: CAMs of {images} ({new:,} new)")
    words: list[object] = ["--run", run]
    if all(map(VocDataset(known.data).has_mask, stage.image_ids(place))):
        words += ["--split", split] if split != scored else []
        words += ["--cams", out] if out else []
        print(f"next: {command('wsss', 'evaluate', *words)}")
    else:
        print(f"next: {command('wsss', 'pseudo-label', *words)}")


def score_cams(run: Path, split: str | None, cams: Path | None) -> None:
    """Print the scores of a split's CAMs, by default the scored one's.

    cams: the folder to read instead of the training's own. Raises DataError for CAMs that are
    missing, broken or made from other data.
    """
    known = recall(run)
    labels, split = known.config.labels, split or known.config.data.eval_split
    chain, dataset = known.chain(PseudoLabelConfig(), split), VocDataset(known.data)
    place, stage = known.with_images(split).place(chain, cams=cams), InferCams(chain)
    again = ["infer", "--run", run, "--split", split]
    thresholds, num_classes = threshold_grid(labels.background_score), len(dataset.classes)
    images, unknown = [], 0
    for image_id in shown(stage.image_ids(place), "counting pixels"):
        path = place.store.folder(stage.images_rel).path / f"{image_id}{stage.suffix}"
        found = _own_cams(path, stage.source(place, image_id), again, cams)
        mask = dataset.mask(image_id)
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


def _own_cams(path: Path, source: str, again: Sequence[object], cams: Path | None) -> CamFile:
    """Read an image's CAMs, which have to be made from this source.

    again: the `wsss` command that infers into the training's own folder; cams: the folder to read
    instead.
    """
    if not path.exists():
        write = command("wsss", *again, *(["--out", cams] if cams else []))
        raise DataError(f"{path}: missing; write it with: {write}")
    found = read_cams(path)
    if found.source not in ("", source):
        other = " --out OTHER, and evaluate with --cams OTHER" if cams else ""
        raise DataError(
            f"{path}: made by another network, or before its picture or labels were changed; "
            f"infer again: {command('wsss', *again)}{other}"
        )
    return found


def _print_score(score: Score, labels: LabelsConfig, classes: tuple[str, ...]) -> None:
    print(f"mIoU {score.miou_fixed:.2f} % at the fixed background score {score.fixed_threshold:g}")
    print(
        f"mIoU {score.miou_best:.2f} % at the best threshold {score.best_threshold:g} "
        "(chosen with pixel ground truth)"
    )
    low, high = labels.threshold_range
    area = area_under_curve(score.curve, labels)
    print(f"mIoU {area:.2f} % on average over thresholds {low:g} to {high:g} (AUC)")
    print(f"IoU at the fixed score; mIoU is the mean over {_of_labels(score.iou_fixed)}:")
    for name, value in zip(("background", *classes), score.iou_fixed, strict=True):
        print(f"  {name:14} {'absent' if value is None else f'{value:.2f}':>6}")


def told(score: SegmentationScore | None, labels: PseudoLabelConfig, run: Run) -> str:
    """Return the score of label maps in words, or why they are not scored."""
    if score:
        over = _of_labels(list(score.iou.values()))
        return f"mIoU {score.miou:.2f} % on {counted(score.num_images, 'image')}, over {over}"
    dataset, split = VocDataset(run.data), run.config.data.eval_split
    if not all(map(dataset.has_mask, dataset.image_ids(split))):
        return f"not scored, as not all images of the split {split} have a mask"
    if labels.background == "fixed":
        return f"not scored, as none of these images is in the split {split}"
    return "not scored, as `confident` labels leave pixels out"


def _of_labels(ious: list[float | None]) -> str:
    """Say over how many labels a mean is taken: absent labels have no IoU."""
    absent = ious.count(None)
    note = f", as {absent} are in no mask and no label map" if absent else ""
    return f"{len(ious) - absent} of {len(ious)} labels{note}"
