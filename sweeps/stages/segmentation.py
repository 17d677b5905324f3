"""The stages from pseudo-labels to a scored segmentation network."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from sweeps.evidence.image_counts import PREDICTED, save_image_counts
from sweeps.evidence.images import ImageCounts
from sweeps.plan.chains.chain import ChainConfig
from sweeps.stages.labels import WriteLabels, label_score
from sweeps.stages.score import evenly_spaced
from sweeps.stages.stage import PerImage, Place, Record, Stage, Steps, TrainingStage
from sweeps.stages.train_cam import trained
from sweeps.store.store import Folder, write_json
from wsss.data.pictures.image import as_array, read_image
from wsss.data.pictures.mask import MAKE_AGAIN, REPLACE, read_mask
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.figures import GalleryRow, draw_segmentation_gallery
from wsss.evaluation.segmentation_score import SegmentationScore, score_folder
from wsss.labels.refine.crf import require_crf
from wsss.labels.segment import write_segmentation
from wsss.networks.deeplab import build_deeplab
from wsss.training.segmentation import load_trained, segmentation_training


@dataclass(frozen=True)
class TrainDeepLab(TrainingStage):
    """DeepLab, trained on pseudo-labels or on the true masks."""

    room: ClassVar[str] = "segmentations"
    title: ClassVar[str] = "train DeepLab"

    chain: ChainConfig

    def id(self) -> str:
        """Labels and training settings."""
        return self.chain.segmentation_id

    def needs(self) -> tuple[Stage, ...]:
        """The pseudo-labels; true masks are part of the data set."""
        return (WriteLabels(self.chain),) if self.chain.labels else ()

    def run(self, place: Place, folder: Folder) -> Steps:
        """Train from the last checkpoint; yield the numbers of each epoch."""
        config, dataset = self.chain.segmentation, place.dataset
        first = place.process.is_first
        if first:
            settings = config.model_dump(mode="json")
            saved = {"stage": self.rel, "segmentation": settings, "classes": dataset.classes}
            write_json(folder.path / "config.json", saved)
        samples = dataset.samples(self.chain.run.data.train_split)
        num_classes, ids = len(dataset.classes), [sample.image_id for sample in samples]
        training = segmentation_training(
            build_deeplab(config, num_classes, weights_file=place.weights_file),
            config,
            samples,
            self.label_maps(place, ids),
            remedy=MAKE_AGAIN if self.chain.labels else REPLACE,
            process=place.process,
            checkpoints=self.own_checkpoints(folder, place),
        )
        for epoch in training.epochs():
            if first:
                folder.add_epoch(epoch.to_json())
            yield Record(self, epoch.iteration / config.iterations, epoch.metrics())
        return trained(folder, place)

    def label_maps(self, place: Place, image_ids: list[str]) -> list[Path]:
        """Return each image's pseudo-label, downloaded if need be, or its true mask."""
        if not self.chain.labels:
            return place.dataset.mask_paths(image_ids)
        images = WriteLabels(self.chain).pulled(place)
        return [images / f"{image_id}.png" for image_id in image_ids]


@dataclass(frozen=True, kw_only=True)
class Predicted(SegmentationScore):
    """A chain's result: its figures and what they were measured on."""

    labels: str
    """What it was trained on, in words."""
    labels_score: dict[str, Any] | None
    """Of the pseudo-labels, as `label_score` returns it; None for the true masks."""
    train_images: int
    eval_images: int
    eval_split: str
    train_seconds: float
    environment: dict[str, Any]


@dataclass(frozen=True)
class Predict(PerImage):
    """Predictions of the evaluation split, scored."""

    room: ClassVar[str] = "predictions"
    title: ClassVar[str] = "predict"
    suffix: ClassVar[str] = ".png"

    chain: ChainConfig

    def id(self) -> str:
        """Network, test settings and split."""
        return self.chain.prediction_id

    @property
    def images_rel(self) -> str:
        """Path in the store of the PNGs."""
        return f"{self.room}/{self.chain.prediction_id}/png"

    def needs(self) -> tuple[Stage, ...]:
        """The network."""
        return (TrainDeepLab(self.chain),)

    def image_ids(self, place: Place) -> list[str]:
        """Return the split's images."""
        return place.dataset.image_ids(self.chain.eval_split)

    def do(self, place: Place, image_ids: list[str]) -> Iterator[str]:
        """Segment the images, without their masks or image-level labels."""
        config, dataset = self.chain.segmentation, place.dataset
        network = place.store.folder(TrainDeepLab(self.chain).rel)
        network.pull_training()
        checkpoints = TrainDeepLab(self.chain).own_checkpoints(network)
        model = load_trained(checkpoints, config, len(dataset.classes))
        target = place.store.folder(self.images_rel).path
        for path in write_segmentation(
            model, unlabelled(dataset, image_ids), config, target, device=place.process.device
        ):
            yield path.stem

    def finish(self, place: Place, folder: Folder) -> Any:
        """Draw a gallery and score the predictions."""
        dataset, ids = place.dataset, self.image_ids(place)
        images = self.pulled(place)
        path = folder.path / "gallery.png"
        draw_gallery(path, {"prediction": images}, dataset, evenly_spaced(ids))
        counts: list[ImageCounts] = []
        score = score_folder(
            images, dataset, ids, lambda c: counts.append(ImageCounts.from_confusions(c[None]))
        )
        save_image_counts(folder.path, ids, {PREDICTED: ImageCounts.joined(counts)})
        training = place.result(TrainDeepLab(self.chain))
        labels = self.chain.labels and label_score(self.chain, place)
        return Predicted(
            **asdict(score),
            labels=self.chain.name,
            labels_score=asdict(labels) if labels else None,
            train_images=len(dataset.image_ids(self.chain.run.data.train_split)),
            eval_images=len(ids),
            eval_split=self.chain.eval_split,
            train_seconds=training["train_seconds"],
            environment=training["environment"],
        )


def require_packages(chain: ChainConfig, place: Place) -> None:
    """Raise MissingCrfError if the chain is yet to use a dense CRF that cannot be imported here."""
    refines = chain.labels is not None and "crf" in chain.labels.refinement
    if (refines and not WriteLabels(chain).is_done(place)) or (
        chain.segmentation.test_crf and not Predict(chain).is_done(place)
    ):
        require_crf()


def unlabelled(dataset: VocDataset, image_ids: list[str]) -> list[Sample]:
    """Return images without labels: a network needs none, and a test split has none."""
    return [Sample(name, dataset.image_path(name), ()) for name in image_ids]


def draw_gallery(
    path: Path,
    predictions: Mapping[str, Path],
    dataset: VocDataset,
    image_ids: list[str],
    *,
    with_truth: bool = True,
    legend: bool = False,
    dots_per_inch: int = 80,
) -> None:
    """Draw images beside their predictions, and beside their masks if `with_truth`.

    predictions: title of a column -> folder of its PNGs.
    """
    rows = []
    for name in image_ids:
        maps = [dataset.mask(name)] if with_truth else []
        for folder in predictions.values():
            own = folder / f"{name}.png"
            maps.append(read_mask(own, len(dataset.classes), remedy=MAKE_AGAIN))
        rows.append(GalleryRow(name, as_array(read_image(dataset.image_path(name))), tuple(maps)))
    draw_segmentation_gallery(
        path,
        rows,
        [*(["ground truth"] if with_truth else []), *predictions],
        class_names=dataset.classes if legend else (),
        dots_per_inch=dots_per_inch,
    )
