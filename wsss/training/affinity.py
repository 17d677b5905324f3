"""Training of the affinity network, as a generator of one record per epoch.

One process on one device: only the heads are trained as a rule, in minutes. Legend: B batch, S crop
size, h w feature size, M pairs of near pixels.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsss.config import NetworkConfig, TrainConfig, ViewsConfig
from wsss.data.loading import CROP_STREAM, collate, epoch_order, iterations_per_epoch, read_rgb
from wsss.data.transforms import cut_crop, cut_labels, plan_crop
from wsss.data.voc import DataError, Sample
from wsss.labels.affinity_labels import AffinityLosses, affinity_losses, labels_at, pair_kinds
from wsss.method.views import network_inputs
from wsss.networks.affinity_net import AffinityNet, neighbour_pairs, pair_distances
from wsss.segmentation_config import RandomWalkConfig
from wsss.training.cam import DivergedError
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.execution import Execution
from wsss.training.optim import build_sgd, lr_factor, set_lr

LabelMaps = Callable[[Sample], NDArray[np.uint8]]
"""Gives an image's confident labels [H, W]: 0 background, 1..K, 255 unsure. Asked once an epoch."""


@dataclass(frozen=True)
class AffinityRecord:
    """What one epoch came to, averaged over its iterations."""

    epoch: int
    """1-based, out of config.epochs."""
    loss: float
    loss_foreground: float
    """Mean distance of pairs within one class; 0 would be perfect."""
    loss_background: float
    loss_negative: float
    """Mean -log(1 - affinity) of pairs across a border."""
    negative_share: float
    """Pairs across a border, out of those that teach anything; 0: the labels hold no border."""
    lr: float
    """Of the new layers, at the last iteration."""
    seconds: float


def build_affinity_net(
    network: NetworkConfig, config: RandomWalkConfig, *, weights_file: Path | None = None
) -> AffinityNet:
    """Build the network from `rng_seed`. Raises WeightsError for initial weights that do not fit.

    Of `network`, the backbone, its weights and the frozen stages count.
    """
    torch.manual_seed(config.rng_seed)
    model = AffinityNet(network, config, weights_file=weights_file)
    return model.to(memory_format=torch.channels_last)


def train_affinity(
    model: AffinityNet,
    samples: list[Sample],
    label_maps: LabelMaps,
    config: RandomWalkConfig,
    *,
    device: torch.device,
    checkpoints: CheckpointFolder | None = None,
    execution: Execution | None = None,
) -> Iterator[AffinityRecord]:
    """Train `model` in place, from its last checkpoint if there is one; yield after each epoch.

    An epoch's checkpoint is written when the caller asks for the next record, as in train_cam.
    Raises DataError for too few images or a label map of another size than its image, DivergedError
    if the loss is not finite.
    """
    train = sgd_settings(config)
    model.to(device).train()
    crops = AffinityCrops(samples, label_maps, train, rng_seed=config.rng_seed)
    iterations = iterations_per_epoch(len(crops), config.batch_size)
    optimizer = build_sgd(model.parameter_groups(), train)
    start = checkpoints.restore(model, optimizer) if checkpoints else Position(0, 0)
    iteration = start.iteration
    for epoch in range(start.epoch, config.epochs):
        started, terms = time.perf_counter(), []
        for batch in _batches(crops, epoch, (execution or Execution()).num_loader_workers or 0):
            set_lr(optimizer, lr_factor(iteration, config.epochs * iterations, train))
            losses, share = affinity_step(model, batch, config.radius, device)
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()
            optimizer.step()
            terms.append(torch.stack([*losses, share]).detach())
            if not math.isfinite(float(terms[-1][0])):
                raise DivergedError(
                    f"affinity loss {float(terms[-1][0])} at iteration {iteration}; lower "
                    f"random_walk.lr (now {config.lr})"
                )
            iteration += 1
        loss, foreground, background, negative, share = torch.stack(terms).double().mean(0).tolist()
        yield AffinityRecord(
            epoch=epoch + 1,
            loss=loss,
            loss_foreground=foreground,
            loss_background=background,
            loss_negative=negative,
            negative_share=share,
            lr=optimizer.param_groups[-1]["lr"],
            seconds=time.perf_counter() - started,
        )
        if checkpoints:
            checkpoints.save(Position(epoch + 1, iteration), model, optimizer)


def affinity_step(
    model: AffinityNet, batch: tuple[Tensor, Tensor, Tensor], radius: int, device: torch.device
) -> tuple[AffinityLosses, Tensor]:
    """Return a batch's losses and the share of its pairs that lie across a border."""
    pixels, boxes, labels = (part.to(device, non_blocking=True) for part in batch)
    x = network_inputs(pixels, boxes, ViewsConfig())[0]
    features = model(x.contiguous(memory_format=torch.channels_last))
    height, width = features.shape[-2:]
    kinds = pair_kinds(labels_at(labels, (height, width)), neighbour_pairs(height, width, radius))
    losses = affinity_losses(pair_distances(features, radius), kinds)
    foreground, background, negative = (kind.sum() for kind in kinds)
    return losses, negative / (foreground + background + negative).clamp(min=1)


class AffinityCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Crops with their label maps, indexed by (epoch, image index), as CropDataset's are."""

    def __init__(
        self, samples: list[Sample], label_maps: LabelMaps, train: TrainConfig, *, rng_seed: int
    ) -> None:
        self.samples, self.label_maps, self.train = samples, label_maps, train
        self.rng_seed = rng_seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels uint8 [3, S, S], the content's box [4] and labels uint8 [S, S]."""
        epoch, index = key
        sample = self.samples[index]
        image, labels = read_rgb(sample), self.label_maps(sample)
        height, width = image.shape[1:]
        if labels.shape != (height, width):
            raise DataError(
                f"{sample.image_id}: label map of {labels.shape}, image of "
                f"{(height, width)}; make the labels anew from this image"
            )
        rng = np.random.default_rng([self.rng_seed, CROP_STREAM, epoch, index])
        plan = plan_crop(width, height, self.train, rng)
        pixels = cut_crop(image, plan, self.train.crop_size)
        cut = cut_labels(torch.from_numpy(labels), plan, self.train.crop_size)
        return pixels, torch.tensor(plan.box), cut


def sgd_settings(config: RandomWalkConfig) -> TrainConfig:
    """Return the affinity settings as those of the CAM loop, whose crops and SGD are used."""
    return TrainConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        crop_size=config.crop_size,
        min_long_side=config.min_long_side,
        max_long_side=config.max_long_side,
        lr=config.lr / config.head_lr_multiplier,
        head_lr_multiplier=config.head_lr_multiplier,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def _batches(
    crops: AffinityCrops, epoch: int, num_workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    order, size = (
        epoch_order(len(crops), rng_seed=crops.rng_seed, epoch=epoch),
        crops.train.batch_size,
    )
    keys = [(epoch, index) for index in order]
    full = [keys[start : start + size] for start in range(0, len(keys) - size + 1, size)]
    loader: DataLoader[tuple[Tensor, Tensor, Tensor]] = DataLoader(
        crops, batch_sampler=full, num_workers=num_workers, collate_fn=collate
    )
    yield from loader
