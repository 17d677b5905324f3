"""Batches of training crops, equal for any number of workers and ranks.

The order of an epoch depends on (rng_seed, epoch), a crop on (rng_seed, epoch, image index) and on
nothing else. Rank r of R takes the r-th slice of every global batch, so that a run on four workers
sees what a run on one sees. Making a batch ahead changes no pixel. Legend: B batch on this rank, K
classes, S crop size, H W image size.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss.config import TrainConfig
from wsss.data.image import read_image
from wsss.data.transforms import cut_crop, plan_crop, stack_images
from wsss.data.voc import DataError, Sample, label_vector

T = TypeVar("T")

ORDER_STREAM, CROP_STREAM = 0, 1
"""Keep the random streams of the epoch's order and of the crops apart."""


class CropBatch(NamedTuple):
    """A batch as it leaves the loader, still in 8 bits."""

    pixels: Tensor
    """[B, 3, S, S] uint8 in channels-last format, 0 in the padding."""
    boxes: Tensor
    """[B, 4] int64: top, left, bottom, right of the image content."""
    targets: Tensor
    """[B, K] float32, image-level labels, 0 or 1."""


def read_rgb(sample: Sample) -> Tensor:
    """Decode an image as uint8 RGB [3, H, W]. Raises DataError for a missing or broken file."""
    return read_image(sample.image_path)


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
        """Return pixels uint8 [3, S, S], the content's box [4] and the image's labels [K]."""
        epoch, index = key
        sample = self.samples[index]
        rng = np.random.default_rng([self.rng_seed, CROP_STREAM, epoch, index])
        image = read_rgb(sample)
        plan = plan_crop(image.shape[2], image.shape[1], self.train, rng)
        pixels = cut_crop(image, plan, self.train.crop_size)
        targets = label_vector(sample.labels, self.num_classes)
        return pixels, torch.tensor(plan.box), torch.from_numpy(targets)


def collate(items: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Join the items of a batch, of which the first is a crop: as `default_collate`, but faster."""
    crops, second, third = zip(*items, strict=True)
    return stack_images(crops), torch.stack(second), torch.stack(third)


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
    """Yields one rank's batches, epoch by epoch.

    num_workers: processes that load; with 0 this one does. ahead: make the next batch in a thread
    while this one is in use, which pays where a GPU computes: on the CPU it takes a core of another
    trial. pin: in memory which a GPU reads faster.
    """

    def __init__(
        self, dataset: CropDataset, *, rank: int = 0, world_size: int = 1, num_workers: int = 0,
        ahead: bool = False, pin: bool = False,
    ) -> None:  # fmt: skip
        batch_size = dataset.train.batch_size
        if batch_size % world_size:
            divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise DataError(
                f"global batch {batch_size} is not divisible by {world_size} workers; use "
                f"{', '.join(map(str, divisors))} workers or another train.batch_size"
            )
        self.dataset, self.rank, self.num_workers = dataset, rank, num_workers
        self.ahead, self.pin = ahead and num_workers == 0, pin
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
            self.dataset, batch_sampler=batches, num_workers=self.num_workers, pin_memory=self.pin,
            collate_fn=collate,
        )  # fmt: skip
        loaded = iter(loader)
        for pixels, boxes, targets in one_ahead(loaded) if self.ahead else loaded:
            yield CropBatch(pixels, boxes, targets)


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield from `items`, of which a thread makes the next while the caller uses the last.

    In order; an error comes where it would have come; closing waits for the item in the making.
    """

    def advance() -> tuple[T] | None:
        for item in items:
            return (item,)
        return None

    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(advance)
        while (found := made.result()) is not None:
            made = thread.submit(advance)
            yield found[0]
