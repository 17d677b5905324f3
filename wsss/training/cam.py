"""Training of the CAM network, as a generator of one record per epoch.

Legend: B batch on this rank, V views, K foreground classes.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss.config import RunConfig, TrainConfig
from wsss.data.loading import CropBatch, CropDataset, CropLoader, collate
from wsss.data.voc import Sample
from wsss.errors import ForeseenError
from wsss.method.losses import CamLosses, cam_losses
from wsss.method.views import network_inputs
from wsss.networks.cam_net import CamNet
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.compiled import compile_network
from wsss.training.execution import Execution
from wsss.training.optim import build_sgd, clip_gradients, lr_factor, set_lr
from wsss.training.prior import (
    COLLAPSE_MARGIN,
    PriorLimits,
    PriorWarning,
    PriorWatch,
    configured_prior,
    prior_gap,
)
from wsss.training.process import Process

NUM_CALIBRATION_IMAGES = 32


class DivergedError(ForeseenError, RuntimeError):
    """The loss or a gradient became infinite or NaN; the message says where and what to change."""


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to, averaged over its iterations and ranks."""

    epoch: int
    """1-based, out of config.train.epochs."""
    loss: float
    """L of Eq. 7."""
    loss_cls: float
    loss_s: float | None
    """None without an adjusted view."""
    loss_bs: float | None
    grad_norm: float
    """Mean over iterations, before clipping."""
    lr: float
    """Backbone's rate at the last iteration."""
    prior_gap: float
    """1 - L_cls / entropy of the label frequencies; 0 or less: nothing learnt beyond the prior."""
    collapsed: float
    """1.0 while prior_gap is below COLLAPSE_MARGIN: a warning, expected only of early epochs."""
    images_per_second: float
    seconds: float
    step_losses: list[float] = field(default_factory=list)
    """L of every iteration."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the epoch, without the steps and without unused terms."""
        values: dict[str, Any] = asdict(self)
        del values["step_losses"]
        return {key: value for key, value in values.items() if value is not None}


def build_cam_net(
    config: RunConfig, samples: list[Sample], num_classes: int, *, weights_file: Path | None = None
) -> CamNet:
    """Build the network from `rng_seed`, new batch norms calibrated on training crops.

    All ranks build the same network, as crops depend on nothing but seed, epoch and image.
    Raises WeightsError for initial weights that do not fit.
    """
    torch.manual_seed(config.rng_seed)
    model = CamNet(config.network, num_classes, weights_file=weights_file)
    model = model.to(memory_format=torch.channels_last)
    if model.frozen_norm and model.new_norms:
        crops = CropDataset(samples, num_classes, config.train, rng_seed=config.rng_seed)
        indices = evenly_spread(len(crops), NUM_CALIBRATION_IMAGES)
        batch = CropBatch(*collate([crops[0, index] for index in indices]))
        original = network_inputs(batch.pixels, batch.boxes, config.views)[0]
        with model.calibrating():
            model(original)
    return model


def train_cam(
    model: CamNet,
    config: RunConfig,
    samples: list[Sample],
    num_classes: int,
    *,
    process: Process | None = None,
    checkpoints: CheckpointFolder | None = None,
    execution: Execution | None = None,
    limits: PriorLimits | None = None,
) -> Iterator[EpochRecord | PriorWarning]:
    """Train `model` in place, from its last checkpoint if there is one; yield after each epoch.

    An epoch's checkpoint is written when the caller asks for the next record, so that a record
    which the caller has stored is never lost, at worst repeated. A PriorWarning comes in between,
    as soon as `limits` sees one. Every rank of a distributed run calls this with its own Process
    and an equal model. Raises DivergedError on a gradient that is not finite, NotLearningError as
    `limits` says.
    """
    training = CamTraining(
        model, config, samples, num_classes, process=process, checkpoints=checkpoints,
        execution=execution,
    )  # fmt: skip
    process = training.process
    prior = configured_prior(config, samples, num_classes)
    watch = PriorWatch(limits or PriorLimits(), prior)
    for epoch in range(training.position.epoch, config.train.epochs):
        started, terms, norms = time.perf_counter(), [], []
        for losses, norm in training.steps(epoch):
            terms.append(losses)
            norms.append(norm)
            if watch.add(losses[1], training.iteration):
                mean = process.mean(torch.stack(list(watch.recent)).mean())
                if warning := watch.judge(training.iteration, float(mean)):
                    yield warning
        seconds = time.perf_counter() - started
        per_step = process.mean(torch.stack(terms)).double().cpu()  # [iterations, 4]
        loss, loss_cls, loss_s, loss_bs = (float(value) for value in per_step.mean(0))
        gap = prior_gap(loss_cls, prior)
        yield EpochRecord(
            epoch=epoch + 1,
            loss=loss,
            loss_cls=loss_cls,
            loss_s=loss_s if config.views.names else None,
            loss_bs=loss_bs if config.views.names else None,
            grad_norm=float(torch.stack(norms).mean()),
            lr=training.optimizer.param_groups[0]["lr"],
            prior_gap=gap,
            collapsed=float(gap < COLLAPSE_MARGIN),
            images_per_second=len(terms) * config.train.batch_size / seconds,
            seconds=seconds,
            step_losses=[round(float(value), 6) for value in per_step[:, 0]],
        )
        if checkpoints and process.is_first:
            position = Position(epoch + 1, training.iteration)
            checkpoints.save(position, model, training.optimizer)
        process.barrier()


class CamTraining:
    """A CAM training at one point of its schedule: network, optimiser and batches.

    It starts at its last checkpoint, if there is one.
    """

    def __init__(
        self,
        model: CamNet,
        config: RunConfig,
        samples: list[Sample],
        num_classes: int,
        *,
        process: Process | None = None,
        checkpoints: CheckpointFolder | None = None,
        execution: Execution | None = None,
    ) -> None:
        self.process, self.config = process or Process(), config
        execution = execution or Execution()
        model.to(self.process.device).train()
        on_gpu = self.process.device.type == "cuda"
        self.loader = CropLoader(
            CropDataset(samples, num_classes, config.train, rng_seed=config.rng_seed),
            rank=self.process.rank, world_size=self.process.world_size,
            num_workers=execution.num_loader_workers or 0, ahead=on_gpu, pin=on_gpu,
        )  # fmt: skip
        self.num_iterations = config.train.epochs * self.loader.iterations
        self.optimizer = build_sgd(model.parameter_groups(), config.train)
        self.position = Position(0, 0)
        if checkpoints:
            self.position = checkpoints.restore(model, self.optimizer)
        self.iteration = self.position.iteration
        """Iterations done."""
        self.step = TrainingStep(
            model, self.optimizer, config, self.process, compiled=execution.compiled
        )

    def steps(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Train on an epoch's batches (0-based); yield each step's losses and gradient norm.

        Losses: total, L_cls, L_s and L_bs as a vector, 0 for a term not in use. Raises
        DivergedError on a gradient that is not finite.
        """
        for batch in self.loader.epoch(epoch):
            factor = lr_factor(self.iteration, self.num_iterations, self.config.train)
            set_lr(self.optimizer, factor)
            losses, norm = self.step(batch, self.iteration)
            self.iteration += 1
            yield _stack_terms(losses), norm


class TrainingStep:
    """One optimiser step on one batch."""

    def __init__(
        self, model: CamNet, optimizer: torch.optim.Optimizer, config: RunConfig, process: Process,
        *, compiled: bool = False,
    ) -> None:  # fmt: skip
        network = process.wrap(_AllViews(model))
        self.network = compile_network(network) if compiled else network
        self.optimizer, self.config, self.process = optimizer, config, process
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, batch: CropBatch, iteration: int) -> tuple[CamLosses, Tensor]:
        """Return the batch's losses and the gradient's norm before clipping (scalar tensors)."""
        config, device = self.config, self.process.device
        pixels, boxes, targets = (part.to(device, non_blocking=True) for part in batch)
        inputs = network_inputs(pixels, boxes, config.views)
        bf16 = config.train.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits, cams = self.network(inputs)
        losses = cam_losses(
            logits, cams, targets, config.views, config.transfer,
            over_classes=config.train.cls_reduction, over_views=config.train.cls_over_views,
        )  # fmt: skip
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = clip_gradients(self.parameters, config.train.clip_norm)
        if not math.isfinite(norm):
            raise DivergedError(_explain_divergence(losses, norm, iteration, config.train))
        self.optimizer.step()
        return losses, norm


class _AllViews(nn.Module):
    """Forwards all views: together when batch norm is frozen, one after the other when it is not.

    [V, B, 3, H, W] -> logits [V, B, K], cams [V, B, K, h, w]. A module of its own, so that DDP
    sees one forward per step.
    """

    def __init__(self, model: CamNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        num_views, batch = inputs.shape[:2]
        groups = [inputs.flatten(0, 1)] if self.model.frozen_norm else list(inputs)
        parts = [self.model(x.contiguous(memory_format=torch.channels_last)) for x in groups]
        logits = torch.cat([part.logits for part in parts])
        cams = torch.cat([part.cams for part in parts])
        return logits.unflatten(0, (num_views, batch)), cams.unflatten(0, (num_views, batch))


def _stack_terms(losses: CamLosses) -> Tensor:
    """Return total, L_cls, L_s and L_bs as one detached vector, 0 for a term not in use."""
    zero = losses.total.new_zeros(())
    return torch.stack([zero if term is None else term.detach() for term in losses])


def evenly_spread(num_items: int, count: int) -> list[int]:
    """Return up to `count` distinct indices, evenly spread over `num_items`."""
    count = min(count, num_items)
    return [index * num_items // count for index in range(count)]


def _explain_divergence(losses: CamLosses, norm: Tensor, iteration: int, train: TrainConfig) -> str:
    terms = ", ".join(
        f"{name} {float(value.detach()):.4g}"
        for name, value in zip(losses._fields, losses, strict=True)
        if value is not None
    )
    return (
        f"diverged at iteration {iteration}: gradient norm {float(norm)}, losses {terms}; "
        f"lower train.lr (now {train.lr}), or set train.clip_norm and train.warmup_iterations"
    )
