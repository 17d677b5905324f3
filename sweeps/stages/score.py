"""From a trained CAM network to the score of its pseudo-labels.

Pixels are counted once, at every threshold of a grid. So all scores of a training with the same
inference share one `Count`, if their background scores are on the grid.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from sweeps.evidence.image_counts import (
    COUNTS,
    count_images,
    load_threshold_counts,
    save_run_counts,
)
from sweeps.plan.chains.chain import counts_id
from sweeps.stages.stage import Place, Record, Stage, Steps, T
from sweeps.stages.train_cam import TrainCam, trained_cam
from sweeps.store.code_version import environment
from sweeps.store.store import Folder, write_config
from wsss.config import RunConfig
from wsss.evaluation.confusion import CountedImage
from wsss.evaluation.counting import collected, count_each
from wsss.evaluation.figures import draw_gallery, draw_threshold_curve
from wsss.evaluation.score import Score as Mious
from wsss.evaluation.score import score_counts
from wsss.identity import run_id
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet

NUM_GALLERY_IMAGES = 6


def num_reports(num_images: int) -> int:
    """Return how often a count reports, on every rank: five times, and for each 100 images.

    The watchdog takes a long silence for a hang.
    """
    return max(5, -(-num_images // 100))


@dataclass(frozen=True)
class Counted:
    """Counted pixels, in counts.npz."""

    num_images: int
    inference_seconds: float


@dataclass(frozen=True)
class Count(Stage):
    """Pixel counts of the scored images' CAMs against their masks, at every threshold."""

    room: ClassVar[str] = "counts"
    title: ClassVar[str] = "count pixels"

    config: RunConfig

    def id(self) -> str:
        """Training, inference, scored images and threshold grid."""
        return counts_id(self.config)

    def needs(self) -> tuple[Stage, ...]:
        """The network."""
        return (TrainCam(self.config),)

    def is_done(self, place: Place) -> bool:
        """Whether the counts are in the store and whole."""
        return super().is_done(place) and place.store.folder(self.rel).has_whole(COUNTS)

    def run(self, place: Place, folder: Folder) -> Steps:
        """Infer and count, each rank its part of the images."""
        started, images = time.monotonic(), list[CountedImage]()
        for done in self._count(trained_cam(self.config, place), place, images):
            yield Record(self, done)
        gathered = [image for part in place.process.gather(images) for image in part]
        if place.process.is_first:
            counts = collected(gathered, place.dataset, self.config.labels)
            counts.save(folder.path / COUNTS)
        return Counted(len(gathered), time.monotonic() - started)

    def _count(self, model: CamNet, place: Place, images: list[CountedImage]) -> Iterator[float]:
        """Count this rank's images into `images`; yield the share done."""
        config, process, dataset = self.config, place.process, place.dataset
        scored = dataset.samples(config.data.eval_split)
        own = scored[process.rank :: process.world_size]
        parts = num_reports(len(scored))
        inferred = infer_cams(model, own, config.labels, device=process.device)
        counted = count_each(inferred, dataset, config.labels)
        for part in range(1, parts + 1):
            until = -(-len(own) * part // parts)
            for image in itertools.islice(counted, until - len(images)):
                place.end_if_asked()
                images.append(image)
            yield part / parts


@dataclass(frozen=True, kw_only=True)
class Scored(Mious):
    """A run's result: its figures and what they were measured on."""

    classes: tuple[str, ...]
    data: dict[str, int]
    """train_images and eval_images."""
    train_seconds: float
    inference_seconds: float
    """Of the count, which other runs may share."""
    score_seconds: float
    """Of this score only."""
    environment: dict[str, Any]


@dataclass(frozen=True)
class Score(Stage):
    """The score of one training's pseudo-labels: a run of the tables."""

    room: ClassVar[str] = "runs"
    title: ClassVar[str] = "score CAM"

    config: RunConfig

    def id(self) -> str:
        """All settings."""
        return run_id(self.config)

    def needs(self) -> tuple[Stage, ...]:
        """The training, whose network draws the gallery, and the counted pixels."""
        return TrainCam(self.config), Count(self.config)

    def run(self, place: Place, folder: Folder) -> Steps:
        """Write figures and pictures, on the first rank only."""
        if not place.process.is_first:
            return None
        yield from ()
        started, config, path = time.monotonic(), self.config, folder.path
        write_config(path / "config.json", config)
        counts = load_threshold_counts(place.store, config)
        mious = score_counts(counts, config.labels)
        save_run_counts(
            path, count_images(counts, fixed=mious.fixed_threshold, best=mious.best_threshold)
        )
        draw_threshold_curve(path / "threshold_curve.png", mious)
        dataset = place.dataset
        samples = dataset.samples(config.data.eval_split)
        draw_gallery(
            path / "cam_gallery.png",
            trained_cam(config, place),
            dataset,
            evenly_spaced(samples),
            config,
            device=place.process.device,
        )
        return Scored(
            **asdict(mious),
            classes=dataset.classes,
            data={
                "train_images": len(dataset.image_ids(config.data.train_split)),
                "eval_images": len(samples),
            },
            train_seconds=place.result(TrainCam(config))["train_seconds"],
            inference_seconds=place.result(Count(config))["inference_seconds"],
            score_seconds=time.monotonic() - started,
            environment=environment(place.process),
        )


def evenly_spaced(images: list[T]) -> list[T]:
    """Return the images of a gallery, which are not hand-picked."""
    return images[:: max(1, len(images) // NUM_GALLERY_IMAGES)][:NUM_GALLERY_IMAGES]
