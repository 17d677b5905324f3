"""Training of the CAM network, as a generator of one summary per epoch.

Legend: B batch on this rank, V views, K foreground classes.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsss.config import RunConfig
from wsss.data.loading.batches import CropBatch, CropDataset, collate
from wsss.data.voc import Sample
from wsss.method.diagnostics import map_shares, pull_products, pulls
from wsss.method.losses import CamLosses, cam_losses, transfer_weight
from wsss.method.views import network_inputs
from wsss.networks.cam_net import CamNet, CamOutput
from wsss.networks.parts.pixel_correlation import Refinement, correlation_loss
from wsss.networks.random_weights import drawn_from
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.diagnosis.learning import (
    COLLAPSE_MARGIN,
    PriorLimits,
    PriorWarning,
    PriorWatch,
    prior_gap,
)
from wsss.training.loop import EpochSummary, Forward, Moment, Reading, Step, Training, loader_for
from wsss.training.optim import Poly, build_sgd
from wsss.training.process import ALONE, Process

PULLS = ("pulls cls", "pulls s", "pulls bs", "pulls cls_s", "pulls cls_bs", "pulls s_bs")
PRODUCTS = ("g_cls^2", "g_s^2", "g_bs^2", "g_cls.g_s", "g_cls.g_bs", "g_s.g_bs")
NUM_CALIBRATION_IMAGES = 32
L_CLS = 1
"""Which of the terms of a step it is; the first one is the loss."""


def build_cam_net(
    config: RunConfig, samples: list[Sample], num_classes: int, *, weights_file: Path | None = None
) -> CamNet:
    """Build the network from `rng_seed`, new batch norms calibrated on training crops.

    All ranks build the same network. Raises WeightsError for initial weights that do not fit.
    """
    with drawn_from(config.rng_seed):
        model = CamNet(config.network, num_classes, weights_file=weights_file)
    model = model.to(memory_format=torch.channels_last)
    if model.frozen_norm and model.new_norms:
        crops = CropDataset(samples, num_classes, config.train, rng_seed=config.rng_seed)
        count = min(NUM_CALIBRATION_IMAGES, len(crops))
        evenly_spread = (place * len(crops) // count for place in range(count))
        batch = collate([crops[0, index] for index in evenly_spread])
        model.calibrate(network_inputs(batch.pixels, batch.boxes, config.views)[0])
    return model


def train_cam(
    model: CamNet,
    config: RunConfig,
    samples: list[Sample],
    *,
    process: Process = ALONE,
    checkpoints: CheckpointFolder | None = None,
    limits: PriorLimits | None = None,
) -> Iterator[EpochSummary | PriorWarning]:
    """Train `model` in place, from its last checkpoint if there is one; yield after each epoch.

    The summaries are those of `judged`. A PriorWarning is yielded within an epoch, once L_cls fails
    one of the `limits`. Every rank of a distributed run calls this with its own Process and an
    equal model. Raises NotLearningError according to `limits`, and what `Training.run` raises.
    """
    training = cam_training(model, config, samples, process=process, checkpoints=checkpoints)
    prior = label_prior(config, samples, model.num_classes)
    watch = PriorWatch(limits or PriorLimits(), prior)
    for found in training.run():
        if isinstance(found, Reading):
            if warning := watch.look(float(found.values[L_CLS]), found.iteration):
                yield warning
        else:
            yield judged(found, config, prior)


def judged(found: EpochSummary, config: RunConfig, prior: float) -> EpochSummary:
    """Return a summary of `CamStep` with what its terms say. prior: see `label_prior`.

    loss: L of Eq. 7, and the terms of `own_terms` under their weights; loss_cls, loss_s, loss_bs
    (Eq. 4 to 6; the last two with an adjusted view only), loss_<name> of `own_terms`.
    prior_gap: 1 - L_cls / prior; 0 or less: nothing learnt beyond the label frequencies.
    collapsed: 1.0 if prior_gap is below COLLAPSE_MARGIN, else 0.0; normal in the first epochs only.
    By view, in [0, 1]: dead, the share of the present classes' maps without a positive value; area,
    that of the pixels above .3 in these maps, normalised. With an adjusted view, pulls: on the
    epoch's first batch, the norms of the gradients on the CAMs of L_cls, lambda_s L_s and
    lambda_bs L_bs (cls, s, bs), and their cosines (cls_s, cls_bs, s_bs).
    """
    means = dict(found.means)
    if config.views.names:
        # Taken in the epoch's first iteration, 0 in all others: the sum undoes the mean.
        products = [len(found.step_losses) * means.pop(name) for name in PRODUCTS]
        means |= zip(PULLS, pulls(products), strict=True)
    else:
        del means["loss_s"], means["loss_bs"]
    gap = prior_gap(means["loss_cls"], prior)
    own = {"prior_gap": gap, "collapsed": float(gap < COLLAPSE_MARGIN)}
    return replace(found, means=means | own)


def label_prior(config: RunConfig, samples: list[Sample], num_classes: int) -> float:
    """Return L_cls of the best constant prediction: the mean entropy of the label frequencies.

    In the units of the configured L_cls, which may sum classes and views.
    """
    counts = np.bincount([k for s in samples for k in s.labels], minlength=num_classes)
    rate = np.clip(counts / len(samples), 1e-12, 1 - 1e-12)
    entropy = float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)).mean())
    scale = num_classes if config.train.cls_reduction == "sum" else 1
    scale *= 1 + len(config.views.names) if config.train.cls_over_views == "sum" else 1
    return entropy * scale


def cam_training(
    model: CamNet,
    config: RunConfig,
    samples: list[Sample],
    *,
    process: Process = ALONE,
    checkpoints: CheckpointFolder | None = None,
) -> Training:
    """Return the training of `model`, moved to its device, at its last checkpoint if there is one.

    The terms of its steps are those of `CamStep`.
    """
    train = config.train
    crops = CropDataset(samples, model.num_classes, train, rng_seed=config.rng_seed)
    loader = loader_for(process, crops, train.batch_size)
    num_iterations = train.epochs * loader.iterations
    schedule = Poly(num_iterations, train.poly_power, warmup=train.warmup_iterations)
    return Training(CamStep(model, config, process), loader, schedule, checkpoints)


def own_terms(config: RunConfig) -> dict[str, float]:
    """Return the losses in use that are not the paper's: name -> weight.

    Add a new one last, and only where it is on: then half-trained networks can still be resumed.
    """
    terms = {}
    if config.network.pixel_correlation in ("loss", "both"):
        terms["pc"] = config.train.lambda_pc
    return terms


class CamStep(Step):
    """A step on the losses, as means over a batch's images, and the numbers of diagnostics.py.

    Each of the paper's losses (Eq. 4 to 7) has a term, 0 where it is not in use; those of
    `own_terms` come last.
    """

    def __init__(self, model: CamNet, config: RunConfig, process: Process = ALONE) -> None:
        train = config.train
        network, how = AllViews(model), train.precision
        super().__init__(model, process, precision=how, clip_norm=train.clip_norm, network=network)
        self.optimizer = build_sgd(model.parameter_groups(), train)
        self.config, self.frozen_norm = config, model.frozen_norm
        views = ("original", *config.views.names)
        shares = (f"{kind} {view}" for kind in ("dead", "area") for view in views)
        products = PRODUCTS if config.views.names else ()
        self.own = own_terms(config)
        losses = ("loss", "loss_cls", "loss_s", "loss_bs")
        self.names = (*losses, *shares, *products, *(f"loss_{name}" for name in self.own))
        self.remedy = (
            f"lower train.lr (now {train.lr}), or set train.clip_norm and train.warmup_iterations"
        )

    def whole(self, batch: CropBatch, moment: Moment) -> tuple[int, Moment]:
        """Return the number of images, and the moment."""
        return len(batch.pixels), moment

    def terms(self, forward: Forward, part: CropBatch, whole: tuple[int, Moment]) -> Tensor:
        """Return a part's share of the terms: [T]."""
        config, (num_images, moment) = self.config, whole
        inputs = network_inputs(part.pixels, part.boxes, config.views)
        logits, cams, refinement = forward(inputs)
        own = self._own_losses(cams, refinement, part.targets)
        losses = self._losses(logits, cams, part.targets, moment)
        total = losses.total
        for name, weight in self.own.items():
            total = total + weight * own[name]
        zero, share = total.new_zeros(()), len(part.pixels) / num_images
        found = [torch.stack([zero if t is None else t for t in (total, *losses[1:])])]
        found.append(map_shares(cams, part.targets).flatten())
        if config.views.names:
            found.append(zero.expand(len(PRODUCTS)))
            if moment.starts_epoch:
                # Computed on this part's own mean loss. In the global batch's, these gradients are
                # share / world_size times as large, and their products that squared. The step sums
                # over parts and averages over ranks.
                products = self._pull_products(cams, part.targets, moment)
                found[-1] = products * (share / self.process.world_size)
        found += [own[name][None] for name in self.own]
        return torch.cat(found) * share

    def _own_losses(
        self, cams: Tensor, refinement: Refinement | None, targets: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of `own_terms`: name -> scalar. cams: raw [V, B, K, h, w]."""
        losses = {}
        if refinement is not None:
            losses["pc"] = correlation_loss(refinement, targets.repeat(len(cams), 1))
        return losses

    def _losses(self, logits: Tensor, cams: Tensor, targets: Tensor, moment: Moment) -> CamLosses:
        train, views, transfer = self.config.train, self.config.views, self.config.transfer
        over = {"over_classes": train.cls_reduction, "over_views": train.cls_over_views}
        progress = moment.progress
        return cam_losses(logits, cams, targets, views, transfer, progress=progress, **over)

    def _pull_products(self, cams: Tensor, targets: Tensor, moment: Moment) -> Tensor:
        transfer = self.config.transfer
        weight = transfer_weight(moment.progress, transfer)
        return pull_products(
            cams,
            lambda given: self._losses(given.mean((3, 4)), given, targets, moment),
            (weight * transfer.lambda_s, weight * transfer.lambda_bs),
        )


class AllViews(nn.Module):
    """Forwards all views: together if batch norm is frozen, else one after the other.

    A separate module, so that DDP sees one forward per step.
    """

    def __init__(self, model: CamNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> CamOutput:
        """[V, B, 3, H, W] -> logits [V, B, K], CAMs [V, B, K, h, w], refinement [VB, K, h, w]."""
        num_views, batch = inputs.shape[:2]
        groups = [inputs.flatten(0, 1)] if self.model.frozen_norm else list(inputs)
        parts = [self.model(x.contiguous(memory_format=torch.channels_last)) for x in groups]
        logits = torch.cat([part.logits for part in parts])
        cams = torch.cat([part.cams for part in parts])
        pairs = [part.refinement for part in parts if part.refinement is not None]
        return CamOutput(
            logits.unflatten(0, (num_views, batch)),
            cams.unflatten(0, (num_views, batch)),
            Refinement(*map(torch.cat, zip(*pairs, strict=True))) if pairs else None,
        )
