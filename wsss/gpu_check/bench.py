"""What the sections measure: device, pictures, and the speeds known so far."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from wsss.config import Precision
from wsss.data.voc import Sample, VocDataset
from wsss.gpu_check.trainings import Weights

PRECISIONS: tuple[Precision, ...] = ("tf32", "bf16", "fp32")
VOC_SIZE = (500, 375)
"""Width and height of a typical picture of VOC."""
NUM_ENLARGED = 16
DRAWN = "drawn pictures"


@dataclass(frozen=True)
class StepSpeed:
    """One cell in one precision."""

    cell: str
    precision: str
    batch: int
    micro_batch: int
    """Images per forward."""
    images_per_second: float
    """Of the data set (each is forwarded once per view): mean over `Bench.seconds`."""
    peak_gib: float = 0.0
    """Most memory that torch held on the GPU; 0 on a CPU."""


@dataclass(frozen=True)
class LoadingSpeed:
    """The loader with some worker processes; with none, the training process loads itself."""

    workers: int
    images_per_second: float


@dataclass(frozen=True)
class InferenceSpeed:
    """Inference of F3 in one precision, with `at_once` images per forward."""

    precision: str
    at_once: int
    images_per_second: float
    mean_change: float
    """Of a normalised CAM, against fp32."""


@dataclass(frozen=True)
class Bench:
    """What was asked for, a data set in VOC layout, and the speeds that the sections fill in."""

    device: torch.device
    out: Path
    small: bool
    """Small crops and batches, for a CPU."""
    preset: str
    """For the sections that measure speed."""
    minutes: float
    weights: Weights
    source: str
    """The pictures' name on the page."""
    dataset: VocDataset
    training: list[Sample]
    large: list[Sample]
    """Training images of VOC's size: the user's own, or drawn ones enlarged."""
    steps: list[StepSpeed] = field(default_factory=list)
    loaded: list[LoadingSpeed] = field(default_factory=list)
    inferred: list[InferenceSpeed] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is checked, rather than the check itself on a CPU."""
        return self.device.type == "cuda"

    @property
    def seconds(self) -> float:
        """For each speed that is measured."""
        return 0.5 if self.small else 2.5


def split_of(dataset: VocDataset, *names: str) -> str:
    """Return the first of these splits that exists; without any the first."""
    there = dataset.split_names()
    return next((name for name in names if name in there), names[0])


def enlarged(sample: Sample, folder: Path) -> Sample:
    """Return a picture with a copy of VOC's size in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sample.image_id}.jpg"
    with Image.open(sample.image_path) as image:
        image.resize(VOC_SIZE, Image.Resampling.BICUBIC).save(path, quality=95)
    return sample._replace(image_path=path)


def images_per_second(run: Callable[[], object], images: int, seconds: float) -> float:
    """Repeat a call on some images, once at least and for about `seconds`."""
    count, started = 0, time.perf_counter()
    while not count or time.perf_counter() - started < seconds:
        run()
        count += 1
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return count * images / (time.perf_counter() - started)


def most(speeds: Iterable[StepSpeed | LoadingSpeed | InferenceSpeed]) -> float:
    """Return the most images per second; 0 if nothing was measured."""
    return max((one.images_per_second for one in speeds), default=0.0)
