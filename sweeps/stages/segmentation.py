"""From label maps to a scored segmentation network."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeps.stages.chain_work import ChainTask, without
from sweeps.store.code_version import environment
from sweeps.store.store import StoreError
from wsss.data.image import as_array
from wsss.data.loading import read_rgb
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.figures_segmentation import GalleryRow, draw_segmentation_gallery
from wsss.evaluation.segmentation_score import score_folder
from wsss.json_files import append_record, read_json, read_records, write_json
from wsss.labels.segment import write_segmentation
from wsss.networks.deeplab import build_deeplab
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.process import Process
from wsss.training.segmentation import load_trained, train_segmentation

NUM_GALLERY_IMAGES = 6


class SegmentationStages:
    """The stages behind the label maps, in one process or in each rank of several."""

    def __init__(self, task: ChainTask, process: Process) -> None:
        self.task, self.process = task, process
        self.chain, self.folders = task.chain, task.folders
        self.dataset = VocDataset(task.data)
        self.num_classes = len(self.dataset.classes)

    def train(self, after_save: Callable[[Path], None] | None = None) -> Iterator[dict[str, float]]:
        """Train DeepLab on the label maps, or on the true masks; yield the numbers per epoch.

        after_save: called with each checkpoint that is whole on disk.
        """
        folder, config = self.folders.segmentation, self.chain.segmentation
        if read_json(folder / "trained.json"):
            return
        if self.process.is_first:
            write_json(
                folder / "config.json",
                {"segmentation": config.model_dump(mode="json"), "classes": self.dataset.classes},
            )
        samples = self.dataset.samples(self.chain.run.data.train_split)
        labels = self.folders.labels / "png" if self.chain.labels else self._true_masks(samples)
        model = build_deeplab(config, self.num_classes, weights_file=self.task.weights_file)
        for record in train_segmentation(
            model, config, samples, labels, self.num_classes, process=self.process,
            checkpoints=CheckpointFolder(folder / "checkpoints", after_save=after_save),
            execution=self.task.execution,
        ):  # fmt: skip
            if self.process.is_first:
                append_record(folder / "epochs.jsonl", asdict(record))
            yield record.metrics() | {"progress": record.iteration / config.iterations}
        if self.process.is_first:
            write_json(
                folder / "trained.json",
                {"iterations": config.iterations, "environment": environment(self.process)},
            )

    def missing(self) -> list[str]:
        """Return the images of the evaluation split that are not segmented yet."""
        samples = self.dataset.samples(self.chain.eval_split)
        return [s.image_id for s in without(samples, self.folders.predictions / "png", ".png")]

    def predict(self, image_ids: list[str]) -> Iterator[str]:
        """Segment images; yield each id once its PNG is written."""
        config = self.chain.segmentation
        checkpoints = CheckpointFolder(self.folders.segmentation / "checkpoints")
        model = load_trained(checkpoints, config, self.num_classes)
        samples = [self.dataset.sample(image_id) for image_id in image_ids]
        for path in write_segmentation(
            model, samples, config, self.folders.predictions / "png", device=self.process.device
        ):
            yield path.stem

    def score(self) -> None:
        """Score the predictions and draw a gallery; metrics.json comes last, once."""
        folder = self.folders.predictions
        if read_json(folder / "metrics.json"):
            return
        samples = self.dataset.samples(self.chain.eval_split)
        self._gallery(samples)
        score = score_folder(folder / "png", self.dataset, [s.image_id for s in samples])
        trained = self.folders.segmentation
        write_json(
            folder / "metrics.json",
            asdict(score)
            | {
                "labels": self.chain.name,
                "labels_score": read_json(self.folders.labels / "score.json"),
                "train_images": len(self.dataset.image_ids(self.chain.run.data.train_split)),
                "eval_images": len(samples),
                "eval_split": self.chain.eval_split,
                "train_seconds": sum(r["seconds"] for r in read_records(trained / "epochs.jsonl")),
                "environment": (read_json(trained / "trained.json") or {}).get("environment")
                or environment(self.process),
            },
        )

    def _gallery(self, samples: list[Sample]) -> None:
        shown = samples[:: max(1, len(samples) // NUM_GALLERY_IMAGES)][:NUM_GALLERY_IMAGES]
        png = self.folders.predictions / "png"
        rows = [
            GalleryRow(
                s.image_id,
                as_array(read_rgb(s)),
                self.dataset.mask(s.image_id),
                (_read_png(png / f"{s.image_id}.png"),),
            )
            for s in shown
        ]
        draw_segmentation_gallery(self.folders.predictions / "gallery.png", rows)

    def _true_masks(self, samples: list[Sample]) -> Path:
        """Return the one folder which holds a mask of every training image."""
        folder = self.dataset.root / "SegmentationClassAug"
        lacking = without(samples, folder, ".png")
        if lacking:
            raise StoreError(
                f"{folder}: no mask of {lacking[0].image_id} and {len(lacking) - 1} more; the "
                "supervised bound needs one of every training image"
            )
        return folder


def _read_png(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image, dtype=np.uint8)
