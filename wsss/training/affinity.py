"""Training of the affinity network on pairs of confident labels.

One process on one device: usually only the heads are trained, in minutes. Legend: B batch, S crop
size, h w feature size, M pairs of near pixels.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import NetworkConfig, TrainConfig, ViewsConfig
from wsss.data.classes import IGNORE_INDEX
from wsss.data.loading.batches import CropBatch, Crops
from wsss.data.loading.crops import CropPlan, cut_labels, plan_crop
from wsss.data.voc import Sample
from wsss.method.views import network_inputs
from wsss.networks.affinity_net import AffinityNet, Pairs, neighbour_pairs, pair_distances
from wsss.networks.backbone import nearest_labels
from wsss.networks.random_weights import drawn_from
from wsss.segmentation_config import RandomWalkConfig
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.loop import Forward, Moment, Step, Training, loader_for
from wsss.training.optim import Poly, build_sgd
from wsss.training.process import ALONE, Process

LabelMaps = Callable[[Sample], NDArray[np.uint8]]
"""Returns an image's confident labels [H, W]: 0 background, 1..K, 255 unsure.

Called once an epoch, perhaps in a loading process: so it must be picklable.
"""

EPSILON = 1e-5
"""Bounds the loss of a negative pair with affinity 1 (PSA)."""


def build_affinity_net(
    network: NetworkConfig, config: RandomWalkConfig, *, weights_file: Path | None = None
) -> AffinityNet:
    """Build the network from `rng_seed`. Raises WeightsError for initial weights that do not fit.

    Only the backbone, its weights and the frozen stages of `network` are used.
    """
    with drawn_from(config.rng_seed):
        model = AffinityNet(network, config, weights_file=weights_file)
    return model.to(memory_format=torch.channels_last)


def affinity_training(
    model: AffinityNet,
    samples: list[Sample],
    label_maps: LabelMaps,
    config: RandomWalkConfig,
    *,
    process: Process = ALONE,
    checkpoints: CheckpointFolder | None = None,
) -> Training:
    """Return the training of `model`, moved to its device, at its last checkpoint if there is one.

    Raises DataError for too few images, later what `label_maps` raises.
    """
    train = sgd_settings(config)
    crops = AffinityCrops(samples, label_maps, train, rng_seed=config.rng_seed)
    loader = loader_for(process, crops, config.batch_size)
    schedule = Poly(config.epochs * loader.iterations, train.poly_power)
    return Training(AffinityStep(model, config, process), loader, schedule, checkpoints)


class PairKinds(NamedTuple):
    """Pairs by what they teach; a pair with an unsure pixel is in none. Each bool [B, M]."""

    foreground: Tensor
    """Both of one foreground class: affinity should be 1."""
    background: Tensor
    """Both background: affinity should be 1."""
    negative: Tensor
    """Of different labels: affinity should be 0."""


def pair_kinds(label_maps: Tensor, pairs: Pairs) -> PairKinds:
    """Sort the pairs of confident label maps [B, h, w] (0, 1..K, 255 unsure) by what they teach."""
    flat = label_maps.flatten(1).long()
    first, second = flat[:, pairs.first], flat[:, pairs.second]  # [B, M]
    sure = (first != IGNORE_INDEX) & (second != IGNORE_INDEX)
    same = first == second
    return PairKinds(sure & same & (first > 0), sure & same & (first == 0), sure & ~same)


def affinity_losses(distances: Tensor, kinds: PairKinds, counts: Tensor) -> Tensor:
    """Return the cross entropy of the affinities exp(-distance), balanced over kinds (PSA, Eq. 6).

    distances: [B, M], 0 or more. counts: [3], the pairs of each kind to divide by, of the whole
    batch if `kinds` are of a part of it. Returns [4]: the loss, in which affinities 1 and 0 weigh
    the same, and the mean of each kind, 0 for one without pairs.
    """
    away = torch.log(-torch.expm1(-distances) + EPSILON)  # log(1 - affinity)
    # -log(affinity) is the distance
    foreground, background, negative = (
        torch.where(chosen, values, 0).sum() / count
        for values, chosen, count in zip(
            (distances, distances, -away), kinds, counts.clamp(min=1), strict=True
        )
    )
    loss = foreground / 4 + background / 4 + negative / 2
    return torch.stack([loss, foreground, background, negative])


class AffinityStep(Step):
    """A step on the `affinity_losses` of a batch's pairs.

    Beside them, the share of pairs across a border, out of all pairs of sure pixels; 0: the labels
    hold no border.
    """

    names = ("loss", "loss_foreground", "loss_background", "loss_negative", "negative_share")

    def __init__(
        self, model: AffinityNet, config: RandomWalkConfig, process: Process = ALONE
    ) -> None:
        super().__init__(model, process, precision=config.precision)
        self.optimizer = build_sgd(model.parameter_groups(), sgd_settings(config))
        self.config = config
        self.remedy = f"lower random_walk.lr (now {config.lr})"

    def whole(self, batch: CropBatch, moment: Moment) -> Tensor:
        """Return how many pairs of the batch are of each kind: [3]."""
        return torch.stack([kind.sum() for kind in self._kinds(batch.targets)])

    def terms(self, forward: Forward, part: CropBatch, whole: Tensor) -> Tensor:
        """Return a part's share of the loss, its three means and the share across borders: [5]."""
        x = network_inputs(part.pixels, part.boxes, ViewsConfig())[0]
        features = forward(x.contiguous(memory_format=torch.channels_last))
        kinds = self._kinds(part.targets)
        losses = affinity_losses(pair_distances(features, self.config.radius), kinds, whole)
        across = kinds.negative.sum() / whole.sum().clamp(min=1)
        return torch.cat([losses, across[None]])

    def _kinds(self, labels: Tensor) -> PairKinds:
        """Sort the pairs of label maps [B, S, S] at the features' size."""
        height, width = (-(-size // self.config.stride) for size in labels.shape[-2:])
        pairs = neighbour_pairs(height, width, self.config.radius, device=labels.device)
        return pair_kinds(nearest_labels(labels, (height, width)), pairs)


class AffinityCrops(Crops):
    """Training crops whose targets are confident labels, uint8 [S, S]."""

    batch_size_setting = "random_walk.batch_size"

    def __init__(
        self, samples: list[Sample], label_maps: LabelMaps, train: TrainConfig, *, rng_seed: int
    ) -> None:
        super().__init__(samples, train.crop_size, rng_seed, partial(plan_crop, train=train))
        self.label_maps = label_maps

    def _target(self, index: int, size: tuple[int, int], plan: CropPlan) -> Tensor:
        labels = torch.from_numpy(self.label_maps(self.samples[index]))
        return cut_labels(labels, plan, self.crop_size)


def sgd_settings(config: RandomWalkConfig) -> TrainConfig:
    """Return the affinity settings as a TrainConfig, since crops and SGD are those of the CAMs."""
    return TrainConfig.model_construct(  # not validated: the backbone's rate may be beyond a rate's
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
