"""Batches of training crops, equal for any number of workers and ranks.

The order of an epoch depends on (rng_seed, epoch), a crop on (rng_seed, epoch, image index) and on
nothing else. Rank r of R takes the r-th slice of every global batch, so that a run on four workers
sees what a run on one sees. Legend: B batch on this rank, K classes, S crop size.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss.config import TrainConfig
from wsss.data.transforms import cut_crop, plan_crop
from wsss.data.voc import BROKEN_IMAGE, IMAGE_FORMATS, DataError, Sample, label_vector

ORDER_STREAM, CROP_STREAM = 0, 1
"""Keep the random streams of the epoch's order and of the crops apart."""


class CropBatch(NamedTuple):
    """A batch as it leaves the loader, still in 8 bits."""

    pixels: Tensor
    """[B, 3, S, S] uint8, 0 in the padding."""
    boxes: Tensor
    """[B, 4] int64: top, left, bottom, right of the image content."""
    targets: Tensor
    """[B, K] float32, image-level labels, 0 or 1."""


class CropDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Training crops, indexed by (epoch, image index)."""

    def __init__(
        self, samples: list[Sample], num_classes: int, train: TrainConfig, *, rng_seed: int
    ) -> None:
        self.samples, self.num_classes, self.train = samples, num_classes, train
        self.rng_seed = rng_seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        epoch, index = key
        sample = self.samples[index]
        rng = np.random.default_rng([self.rng_seed, CROP_STREAM, epoch, index])
        image = read_rgb(sample)
        plan = plan_crop(image.width, image.height, self.train, rng)
        crop = cut_crop(image, plan, self.train.crop_size)
        return (
            torch.from_numpy(crop).permute(2, 0, 1),
            torch.tensor(plan.box),
            torch.from_numpy(label_vector(sample.labels, self.num_classes)),
        )


def read_rgb(sample: Sample) -> Image.Image:
    """Decode an image as RGB. Raises DataError naming a missing or broken file."""
    try:
        with Image.open(sample.image_path, formats=IMAGE_FORMATS) as image:
            return image.convert("RGB")
    except BROKEN_IMAGE as error:
        raise DataError(
            f"{sample.image_path}: cannot be decoded ({error}); replace the file"
        ) from None


def epoch_order(num_images: int, *, rng_seed: int, epoch: int) -> list[int]:
    """Return the image indices of one epoch in training order."""
    rng = np.random.default_rng([rng_seed, ORDER_STREAM, epoch])
    return [int(index) for index in rng.permutation(num_images)]


def iterations_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of full batches; the incomplete last one is dropped, as IRN does.

    Raises DataError if there is not even one.
    """
    if num_images < batch_size:
        raise DataError(
            f"{num_images} training images are fewer than one batch of {batch_size}; lower "
            f"train.batch_size to {num_images} or less"
        )
    return num_images // batch_size


class CropLoader:
    """Yields one rank's batches, epoch by epoch."""

    def __init__(
        self, dataset: CropDataset, *, rank: int = 0, world_size: int = 1, num_workers: int = 0
    ) -> None:
        batch_size = dataset.train.batch_size
        if batch_size % world_size:
            divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise DataError(
                f"global batch {batch_size} is not divisible by {world_size} workers; use "
                f"{', '.join(map(str, divisors))} workers or another train.batch_size"
            )
        self.dataset, self.rank, self.num_workers = dataset, rank, num_workers
        self.local_batch = batch_size // world_size
        self.iterations = iterations_per_epoch(len(dataset), batch_size)

    def epoch(self, epoch: int) -> Iterator[CropBatch]:
        """Yield this rank's part of every global batch of the given epoch (0-based)."""
        order = epoch_order(len(self.dataset), rng_seed=self.dataset.rng_seed, epoch=epoch)
        global_batch = self.dataset.train.batch_size
        batches = []
        for iteration in range(self.iterations):
            start = iteration * global_batch + self.rank * self.local_batch
            batches.append([(epoch, index) for index in order[start : start + self.local_batch]])
        loader: DataLoader[tuple[Tensor, Tensor, Tensor]] = DataLoader(
            self.dataset, batch_sampler=batches, num_workers=self.num_workers
        )
        for pixels, boxes, targets in loader:
            yield CropBatch(pixels, boxes, targets)
