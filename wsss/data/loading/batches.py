"""Batches of training crops, with labels or label maps, equal for any number of workers and ranks.

The order of an epoch depends on (rng_seed, epoch) only, a crop on (rng_seed, epoch, image index)
only. Rank r of R takes the r-th slice of every global batch, so a run on four workers sees what a
run on one sees. Legend: B batch on this rank, K classes, S crop size, H W image size.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss.config import TrainConfig
from wsss.data.check import require_batch
from wsss.data.errors import DataError
from wsss.data.loading.crops import CropPlan, cut_crop, cut_labels, plan_crop, stack_images
from wsss.data.loading.processes import has_little_shared_memory, loader_context, start_loading
from wsss.data.pictures.image import read_image
from wsss.data.pictures.mask import REPLACE, read_mask, require_size
from wsss.data.voc import Sample
from wsss.segmentation_config import DeepLabConfig

Item = tuple[Tensor, Tensor, Tensor]
"""Pixels uint8 [3, S, S], the content's box [4], and the target."""
Array = NDArray[np.generic]

ORDER_STREAM, CROP_STREAM = 0, 1
"""Keep the random streams of the epoch's order and of the crops apart."""


class CropBatch(NamedTuple):
    """A batch as it leaves the loader, still in 8 bits."""

    pixels: Tensor
    """[B, 3, S, S] uint8 in channels-last format, 0 in the padding."""
    boxes: Tensor
    """[B, 4] int64: top, left, bottom, right of the image content."""
    targets: Tensor
    """[B, K] float32, image-level labels, 0 or 1; or label maps, uint8 [B, S, S]: 0 background,
    1..K, 255 ignored, as is the padding."""


class Crops(Dataset[Item]):
    """Training crops, indexed by (epoch, image index). Loading processes get a pickled copy.

    plan: draws a crop of an image, given its width and height in pixels, and `rng`.
    """

    batch_size_setting = "train.batch_size"
    """Its name, for errors."""

    def __init__(
        self, samples: list[Sample], crop_size: int, rng_seed: int, plan: Callable[..., CropPlan]
    ) -> None:
        self.samples, self.crop_size, self.rng_seed, self.plan = samples, crop_size, rng_seed, plan

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Return a crop. Raises DataError for a picture or target that cannot be used."""
        epoch, index = key
        image = read_image(self.samples[index].image_path)
        height, width = image.shape[1:]
        rng = np.random.default_rng([self.rng_seed, CROP_STREAM, epoch, index])
        plan = self.plan(width, height, rng=rng)
        target = self._target(index, (width, height), plan)
        return cut_crop(image, plan, self.crop_size), torch.tensor(plan.box), target

    def _target(self, index: int, size: tuple[int, int], plan: CropPlan) -> Tensor:
        """Return the target of the planned crop of an image of `size` (width, height)."""
        raise NotImplementedError


class CropDataset(Crops):
    """Training crops whose targets are image-level labels, float32 [K]."""

    def __init__(
        self, samples: list[Sample], num_classes: int, train: TrainConfig, *, rng_seed: int
    ) -> None:
        super().__init__(samples, train.crop_size, rng_seed, partial(plan_crop, train=train))
        self.num_classes = num_classes

    def _target(self, index: int, size: tuple[int, int], plan: CropPlan) -> Tensor:
        target = torch.zeros(self.num_classes)
        target[list(self.samples[index].labels)] = 1
        return target


class LabelledCrops(Crops):
    """Training crops whose targets are label maps, uint8 [S, S], cut as their images are.

    label_maps: the PNG of each sample. remedy: of a damaged one. Raises DataError for missing ones.
    """

    batch_size_setting = "batch_size"

    def __init__(
        self,
        samples: list[Sample],
        label_maps: list[Path],
        num_classes: int,
        config: DeepLabConfig,
        *,
        remedy: str = REPLACE,
    ) -> None:
        plan = partial(plan_labelled_crop, config=config)
        super().__init__(samples, config.crop_size, config.rng_seed, plan)
        self.label_maps, self.num_classes, self.remedy = label_maps, num_classes, remedy
        missing = [path for path in label_maps if not path.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]}: missing, {len(missing)} of {len(label_maps)} label maps in all; "
                "write one for every image of the split"
            )

    def _target(self, index: int, size: tuple[int, int], plan: CropPlan) -> Tensor:
        path = self.label_maps[index]
        labels = read_mask(path, self.num_classes, remedy=self.remedy)
        require_size(path, labels, size)
        return cut_labels(torch.from_numpy(labels), plan, self.crop_size)


def plan_labelled_crop(
    width: int, height: int, config: DeepLabConfig, rng: np.random.Generator
) -> CropPlan:
    """Draw a crop of an image scaled by a factor of `scale_jitter`, flipped half of the time.

    The factor is one of `num_scales` evenly spaced ones, equally likely; without that number it is
    uniform, in steps of one pixel of the scaled long side. The image is resized bilinearly
    (DeepLabv2).
    """
    factors = config.scale_jitter
    if config.num_scales is not None:
        factor = float(rng.choice(np.linspace(*factors, config.num_scales)))
        factors = (factor, factor)
    low, high = (max(1, round(factor * max(width, height))) for factor in factors)
    # Not validated: the sides of a large picture may be beyond what can be set.
    train = TrainConfig.model_construct(
        crop_size=config.crop_size, min_long_side=low, max_long_side=high, resize="bilinear"
    )
    return plan_crop(width, height, train, rng)


def collate(items: Sequence[Item]) -> CropBatch:
    """Stack the items of a batch, as `default_collate` does, but faster."""
    pixels, boxes, targets = zip(*items, strict=True)
    return CropBatch(stack_images(pixels), torch.stack(boxes), torch.stack(targets))


def collate_arrays(items: Sequence[Item]) -> tuple[Array, Array, Array]:
    """Join as `collate` does, into arrays, which go to another process through a pipe.

    Tensors would go through shared memory. Pixels are [B, S, S, 3].
    """
    pixels, boxes, targets = collate(items)
    return pixels.permute(0, 2, 3, 1).numpy(), boxes.numpy(), targets.numpy()


def from_arrays(pixels: Array, boxes: Array, targets: Array) -> CropBatch:
    """Return the batch of these arrays of `collate_arrays`."""
    whole = (torch.from_numpy(array) for array in (boxes, targets))
    return CropBatch(torch.from_numpy(pixels).permute(0, 3, 1, 2), *whole)


def epoch_order(num_images: int, *, rng_seed: int, epoch: int) -> list[int]:
    """Return the image indices of one epoch in training order."""
    rng = np.random.default_rng([rng_seed, ORDER_STREAM, epoch])
    return [int(index) for index in rng.permutation(num_images)]


class Loader:
    """Yields one rank's batches, epoch by epoch, from any iteration on.

    The incomplete last batch of an epoch is dropped, as IRN does. num_workers: processes that load;
    0: this one does. pin: into page-locked memory, from which a GPU copies without making the host
    wait. Raises DataError if there is no full batch, or if it cannot be divided among the ranks.
    """

    def __init__(
        self,
        dataset: Crops,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin: bool = False,
    ) -> None:
        if batch_size % world_size:
            divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
            raise DataError(
                f"global batch {batch_size} is not divisible by {world_size} workers; use "
                f"{', '.join(map(str, divisors))} workers or another {dataset.batch_size_setting}"
            )
        require_batch(len(dataset), batch_size, setting=dataset.batch_size_setting)
        self.dataset, self.rank, self.num_workers, self.pin = dataset, rank, num_workers, pin
        self.batch_size, self.local_batch = batch_size, batch_size // world_size
        self.iterations = len(dataset) // batch_size
        """Full batches of an epoch."""

    def epoch(self, epoch: int, start: int = 0, stop: int | None = None) -> Iterator[CropBatch]:
        """Yield this rank's part of the global batches `start` to `stop` of an epoch (0-based)."""
        order = epoch_order(len(self.dataset), rng_seed=self.dataset.rng_seed, epoch=epoch)
        batches = []
        for iteration in range(self.iterations)[start:stop]:
            first = iteration * self.batch_size + self.rank * self.local_batch
            batches.append([(epoch, index) for index in order[first : first + self.local_batch]])
        in_pipes = self.num_workers > 0 and has_little_shared_memory()
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=batches,
            num_workers=self.num_workers,
            multiprocessing_context=loader_context(__name__) if self.num_workers else None,
            worker_init_fn=start_loading,
            pin_memory=self.pin,
            collate_fn=collate_arrays if in_pipes else collate,
        )
        try:
            for batch in loader:
                yield from_arrays(*batch) if in_pipes else batch
        except DataError as error:
            # torch sends a worker's traceback as the message, whose end is the error's own.
            own = str(error).rpartition(f"{DataError.__module__}.{DataError.__qualname__}: ")[2]
            raise DataError(own.rstrip()) from None
