"""The command `wsss pseudo-label`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from wsss.errors import explained
from wsss.training_options import CheckpointMinutes, LoaderWorkers, MicroBatch, execution


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
        from wsss.label_stages import LabelStages, LabelTask
        from wsss.overrides import parse_assignments, replace_settings
        from wsss.run_folder import recall, trained
        from wsss.segmentation_config import PseudoLabelConfig
        from wsss.training.process import pick_device

        how = execution(loader_workers, micro_batch, checkpoint_minutes)
        config, saved = recall(run)
        trained(run)  # refuses an unfinished training before anything is written
        weights = saved["weights_file"]
        chosen = {"refinement": refinement} | parse_assignments(settings or [])
        labels = replace_settings(PseudoLabelConfig(), chosen)
        plain = replace_settings(labels, {"refinement": "none"})
        found = {}
        with _ray(address):
            for each in [plain, labels] if refinement != "none" else [labels]:
                parent = run / "pseudo_labels"
                target = (out if out and each == labels else None) or parent / each.refinement
                task = LabelTask(
                    run=config,
                    labels=each,
                    data=Path(saved["data"]),
                    weights_file=Path(weights) if weights else None,
                    checkpoints=run / "checkpoints",
                    maps=run / "cams",
                    walk=run / "random_walk" / _digest(labels.random_walk, split),
                    target=target,
                    split=split or config.data.train_split,
                    execution=how,
                )
                _remember_labels(target, each, task.split)
                stages = LabelStages(task, pick_device())
                _run_stages(stages, workers, address, cpus, gpus)
                found[each.refinement] = stages.score()
                print(f"{target / 'png'}: {len(stages.dataset.image_ids(task.split))} label maps")
        for name, score in found.items():
            if score is None:
                print("not scored: `confident` labels leave pixels out")
            else:
                print(f"{name}: mIoU {score['miou']:.2f} % on {score['num_images']} images")


def _run_stages(stages: Any, workers: int, address: str | None, cpus: float, gpus: float) -> None:
    from rich.progress import track

    from wsss.label_stages import LEARN

    for stage in stages.task.stages:
        if stage == LEARN:
            epochs = stages.task.labels.random_walk.epochs
            for _ in track(stages.learn_affinity(), total=epochs, description=stage):
                pass
            continue
        missing = stages.missing(stage)
        done = (
            _by_tasks(stages.task, stage, missing, cpus, gpus)
            if address
            else stages.images(stage, missing, num_workers=workers)
        )
        if missing:
            for _ in track(done, total=len(missing), description=stage):
                pass


def _by_tasks(
    task: Any, stage: str, image_ids: list[str], cpus: float, gpus: float
) -> Iterator[str]:
    from wsss.sharding import TaskNeeds, map_shards

    return map_shards(_do_images, (task, stage, cpus), image_ids, TaskNeeds(cpus, gpus))


def _do_images(item: tuple[Any, str, float], image_ids: list[str]) -> Iterator[str]:
    """Do a stage for a shard of images; runs in a Ray task."""
    from wsss.label_stages import LabelStages
    from wsss.training.process import pick_device

    task, stage, cpus = item
    yield from LabelStages(task, pick_device(cpus)).images(stage, image_ids)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Join a cluster, or start Ray here for `local`."""
    if address is None:
        yield
        return
    from wsss.sharding import joined

    with joined(address):
        yield


def _remember_labels(folder: Path, labels: Any, split: str) -> None:
    """Write which labels a folder holds; refuse a folder that holds others."""
    from wsss.json_files import read_json, write_json
    from wsss.overrides import ConfigError

    saved = {"labels": labels.model_dump(mode="json"), "split": split}
    path = folder / "labels.json"
    if path.exists() and read_json(path) != saved:
        raise ConfigError(f"{folder}: holds labels with other settings; choose another --out")
    write_json(path, saved)


def _digest(walk: Any, split: str | None) -> str:
    """Name the folder of a random walk by its settings, so that others never mix with it."""
    text = f"{split}{walk.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
