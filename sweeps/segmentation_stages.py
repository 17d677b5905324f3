"""From label maps to a scored segmentation network."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sweeps.chain_work import ChainWork, Steps, append_record, read_records, without
from sweeps.store import StoreError, read_json, write_json
from sweeps.trial import environment
from wsss.data.loading import read_rgb
from wsss.data.voc import Sample
from wsss.evaluation.figures_segmentation import GalleryRow, draw_segmentation_gallery
from wsss.evaluation.segmentation_score import score_folder
from wsss.labels.segment import write_segmentation
from wsss.networks.deeplab import build_deeplab
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.segmentation import load_trained, train_segmentation

NUM_GALLERY_IMAGES = 6


class SegmentationStages(ChainWork):
    """The stages behind the label maps."""

    def segment(self) -> Steps:
        """Train DeepLab on the label maps, or on the true masks."""
        folder, config = self.folders.segmentation, self.chain.segmentation
        if read_json(folder / "trained.json"):
            return
        write_json(
            folder / "config.json",
            {"segmentation": config.model_dump(mode="json"), "classes": self.dataset.classes},
        )
        labels = self.folders.labels / "png"
        if self.chain.labels is None:
            labels = self._true_masks()
        model = build_deeplab(config, self.num_classes, weights_file=self.task.weights_file)
        records = train_segmentation(
            model, config, self.samples, labels, self.num_classes, process=self.process,
            checkpoints=CheckpointFolder(folder / "checkpoints"),
        )  # fmt: skip
        for record in records:
            append_record(folder / "epochs.jsonl", asdict(record))
            yield record.iteration, config.iterations
        write_json(folder / "trained.json", {"iterations": config.iterations})

    def predict(self) -> Steps:
        """Segment the evaluation split, score it, draw a gallery; metrics.json comes last."""
        folder, config = self.folders.predictions, self.chain.segmentation
        if read_json(folder / "metrics.json"):
            return
        samples = self.dataset.samples(self.chain.eval_split)
        missing = without(samples, folder / "png", ".png")
        if missing:
            checkpoints = CheckpointFolder(self.folders.segmentation / "checkpoints")
            model = load_trained(checkpoints, config, self.num_classes)
            paths = write_segmentation(
                model, missing, config, folder / "png", device=self.process.device
            )
            for done, _ in enumerate(paths, start=1):
                yield done, len(missing)
        self._gallery(samples)
        score = score_folder(folder / "png", self.dataset, [s.image_id for s in samples])
        epochs = read_records(self.folders.segmentation / "epochs.jsonl")
        write_json(
            folder / "metrics.json",
            asdict(score)
            | {
                "labels": self.chain.name,
                "labels_score": read_json(self.folders.labels / "score.json"),
                "train_images": len(self.samples),
                "eval_images": len(samples),
                "eval_split": self.chain.eval_split,
                "train_seconds": sum(record["seconds"] for record in epochs),
                "environment": environment(self.process),
            },
        )

    def _gallery(self, samples: list[Sample]) -> None:
        shown = samples[:: max(1, len(samples) // NUM_GALLERY_IMAGES)][:NUM_GALLERY_IMAGES]
        png = self.folders.predictions / "png"
        rows = [
            GalleryRow(
                s.image_id,
                np.array(read_rgb(s)),
                self.dataset.mask(s.image_id),
                (_read_png(png / f"{s.image_id}.png"),),
            )
            for s in shown
        ]
        draw_segmentation_gallery(self.folders.predictions / "gallery.png", rows)

    def _true_masks(self) -> Path:
        """Return the one folder which holds a mask of every training image."""
        folder = self.dataset.root / "SegmentationClassAug"
        lacking = without(self.samples, folder, ".png")
        if lacking:
            raise StoreError(
                f"{folder}: no mask of {lacking[0].image_id} and {len(lacking) - 1} more; the "
                "supervised bound needs one of every training image"
            )
        return folder


def _read_png(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image, dtype=np.uint8)
