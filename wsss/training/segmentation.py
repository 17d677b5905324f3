"""Training of the segmentation network on label maps, as a generator of one record per epoch.

Legend: B batch on this rank, L labels, S crop size, h w feature size.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config import ViewsConfig
from wsss.data.classes import IGNORE_INDEX
from wsss.data.segmentation_loading import LabelledBatch, LabelledCrops, LabelledLoader
from wsss.data.voc import Sample
from wsss.errors import ForeseenError
from wsss.method.views import network_inputs
from wsss.networks.deeplab import DeepLab, upsample
from wsss.segmentation_config import DeepLabConfig
from wsss.training.cam import DivergedError
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.execution import Execution
from wsss.training.optim import clip_gradients, set_lr
from wsss.training.process import Process

NO_VIEWS = ViewsConfig()


class NotTrainedError(ForeseenError, ValueError):
    """A folder without a checkpoint; the message names it and the remedy."""


@dataclass(frozen=True)
class SegmentationRecord:
    """What one pass over the training images came to, averaged over its iterations and ranks."""

    epoch: int
    """1-based."""
    iteration: int
    """Iterations finished, out of config.iterations."""
    loss: float
    """Cross entropy per labelled pixel, where `loss_size` takes it."""
    pixel_accuracy: float
    """Of those pixels, the part predicted as labelled, in [0, 1]; mean over batches."""
    grad_norm: float
    """Mean over iterations, before clipping."""
    lr: float
    """Backbone's rate at the last iteration."""
    images_per_second: float
    seconds: float
    step_losses: list[float] = field(default_factory=list)
    """Loss of every iteration."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers of the epoch, without the steps."""
        values: dict[str, Any] = asdict(self)
        del values["step_losses"]
        return values


def train_segmentation(
    model: DeepLab,
    config: DeepLabConfig,
    samples: list[Sample],
    labels_folder: Path,
    num_classes: int,
    *,
    process: Process | None = None,
    checkpoints: CheckpointFolder | None = None,
    execution: Execution | None = None,
) -> Iterator[SegmentationRecord]:
    """Train `model` in place, from its last checkpoint if there is one; yield after each epoch.

    The schedule counts iterations, so that the last epoch may be a part of one. As in `train_cam`,
    an epoch's checkpoint is written when the caller asks for the next record, and every rank of a
    distributed run calls this with its own Process and an equal model. Raises DataError for label
    maps that do not fit, DivergedError on a gradient that is not finite.
    """
    process = process or Process()
    model.to(process.device).train()
    loader = LabelledLoader(
        LabelledCrops(samples, labels_folder, num_classes, config),
        rank=process.rank, world_size=process.world_size,
        num_workers=(execution or Execution()).num_loader_workers or 0,
    )  # fmt: skip
    optimizer = build_optimizer(model, config)
    epoch, iteration = checkpoints.restore(model, optimizer) if checkpoints else Position(0, 0)
    step = SegmentationStep(model, optimizer, config, process)
    while iteration < config.iterations:
        started, terms = time.perf_counter(), []
        for batch in loader.epoch(epoch, config.iterations - iteration):
            set_lr(optimizer, poly_factor(iteration, config))
            terms.append(step(batch, iteration))
            iteration += 1
        epoch += 1
        seconds = time.perf_counter() - started
        per_step = process.mean(torch.stack(terms)).double().cpu()  # [iterations, 3]
        loss, accuracy, norm = (float(value) for value in per_step.mean(0))
        yield SegmentationRecord(
            epoch=epoch,
            iteration=iteration,
            loss=loss,
            pixel_accuracy=accuracy,
            grad_norm=norm,
            lr=optimizer.param_groups[0]["lr"],
            images_per_second=len(terms) * config.batch_size / seconds,
            seconds=seconds,
            step_losses=[round(float(value), 6) for value in per_step[:, 0]],
        )
        if checkpoints and process.is_first:
            checkpoints.save(Position(epoch, iteration), model, optimizer)
        process.barrier()


class SegmentationStep:
    """One optimiser step on one batch."""

    def __init__(
        self,
        model: DeepLab,
        optimizer: torch.optim.Optimizer,
        config: DeepLabConfig,
        process: Process,
    ) -> None:
        self.network = process.wrap(model)
        self.optimizer, self.config, self.process = optimizer, config, process
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, batch: LabelledBatch, iteration: int) -> Tensor:
        """Return (loss, pixel accuracy, gradient norm before clipping), whose mean over ranks is
        that of the global batch.
        """
        config, device = self.config, self.process.device
        pixels, boxes, labels = (part.to(device, non_blocking=True) for part in batch)
        inputs = network_inputs(pixels, boxes, NO_VIEWS)[0]
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits = self.network(inputs.contiguous(memory_format=torch.channels_last))
        if config.loss_size == "image":
            logits = upsample(logits, labels.shape[-2:])  # [B, L, S, S]
        else:
            labels = nearest_labels(labels, logits.shape[-2:])  # [B, h, w]
        # Ranks have different numbers of labelled pixels: all divide by the same mean count, so
        # that the mean of their losses, and of their gradients, is that of the global batch.
        valid = labels != IGNORE_INDEX
        num_valid = self.process.mean(valid.sum().float()).clamp_min(1)
        loss = pixel_cross_entropy(logits, labels) / num_valid
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_gradients(self.parameters, config.clip_norm)
        if not math.isfinite(norm):
            raise DivergedError(
                f"diverged at iteration {iteration}: gradient norm {float(norm)}, loss "
                f"{float(loss.detach()):.4g}; lower lr (now {config.lr}), or set clip_norm"
            )
        self.optimizer.step()
        right = ((logits.detach().argmax(1) == labels) & valid).sum()
        return torch.stack([loss.detach(), right / num_valid, norm])


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross entropy summed over pixels whose label is not 255.

    logits: [B, L, H, W]; labels: uint8 [B, H, W] in 0..L-1 and 255.
    """
    return F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_INDEX, reduction="sum")


def nearest_labels(labels: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Return the label under the centre of each place of a coarser grid: [B, H, W] -> [B, h, w].

    Place i of h shows row floor((i + 1/2) H / h), in whole numbers, as Pillow's nearest neighbour
    does; where that centre lies between two pixels (even H or W only), Pillow's rounding takes
    either of them. (torch's mode `nearest` takes floor(i H / h), up to half a step above.)
    """
    rows, columns = (
        (2 * torch.arange(target, device=labels.device) + 1) * source // (2 * target)
        for source, target in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[:, rows[:, None], columns]


def poly_factor(iteration: int, config: DeepLabConfig) -> float:
    """Return lr / lr0 at a 0-based iteration: (1 - start / iterations) ** poly_power.

    start: the last multiple of `lr_step` up to `iteration`; between two the rate rests.
    """
    start = iteration - iteration % config.lr_step
    return (1 - start / config.iterations) ** config.poly_power


def build_optimizer(model: DeepLab, config: DeepLabConfig) -> torch.optim.SGD:
    """Return SGD over backbone, classifiers' weights and their biases, each at its rate."""
    groups = model.parameter_groups()
    settings = (
        (groups.backbone, 1.0, True),
        (groups.head_weights, config.head_lr_multiplier, True),
        (groups.head_biases, config.head_bias_lr_multiplier, config.head_bias_decay),
    )
    return torch.optim.SGD(
        [
            {
                "params": parameters,
                "lr": config.lr * multiplier,
                "base_lr": config.lr * multiplier,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for parameters, multiplier, decays in settings
            if parameters
        ],
        lr=config.lr, momentum=config.momentum, fused=True,
    )  # fmt: skip


def load_trained(checkpoints: CheckpointFolder, config: DeepLabConfig, num_classes: int) -> DeepLab:
    """Return the network of the newest checkpoint, ready to infer; no initial weights are needed.

    Raises NotTrainedError if there is no readable checkpoint.
    """
    model = DeepLab(config.model_copy(update={"weights": "none"}), num_classes)
    if checkpoints.restore(model) == Position(0, 0):
        raise NotTrainedError(
            f"{checkpoints.folder}: no readable checkpoint of a segmentation network; train one"
        )
    return model.to(memory_format=torch.channels_last).eval()
