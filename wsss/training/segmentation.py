"""Training of the segmentation network on label maps.

Legend: B batch on this rank, L labels, S crop size, h w feature size.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.basics.errors import ForeseenError
from wsss.config import ViewsConfig
from wsss.data.classes import IGNORE_INDEX
from wsss.data.loading.batches import CropBatch, LabelledCrops
from wsss.data.pictures.mask import REPLACE
from wsss.data.voc import Sample
from wsss.method.views import network_inputs
from wsss.networks.backbone import nearest_labels, resized_map
from wsss.networks.deeplab import DeepLab
from wsss.networks.random_weights import DRAWING
from wsss.segmentation_config import DeepLabConfig
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.loop import Forward, Moment, Step, Training, loader_for
from wsss.training.optim import Poly, sgd
from wsss.training.process import ALONE, Process

NO_VIEWS = ViewsConfig()


class NotTrainedError(ForeseenError, ValueError):
    """A folder without the last checkpoint; the message names it and the remedy."""


def segmentation_training(
    model: DeepLab,
    config: DeepLabConfig,
    samples: list[Sample],
    label_maps: list[Path],
    *,
    remedy: str = REPLACE,
    process: Process = ALONE,
    checkpoints: CheckpointFolder | None = None,
) -> Training:
    """Return the training of `model`, moved to its device, at its last checkpoint if there is one.

    label_maps: the PNG of each sample; remedy: of a damaged one. The schedule counts iterations.
    Every rank of a distributed run calls this with its own Process and an equal model. Raises
    DataError for missing label maps and too few images, later for some that do not fit.
    """
    crops = LabelledCrops(samples, label_maps, model.num_labels - 1, config, remedy=remedy)
    loader = loader_for(process, crops, config.batch_size)
    schedule = Poly(config.iterations, config.poly_power, hold=config.lr_step)
    return Training(SegmentationStep(model, config, process), loader, schedule, checkpoints)


class SegmentationStep(Step):
    """A step on the cross entropy per labelled pixel, at the size that `loss_size` names.

    Beside it, the share of those pixels predicted as labelled, in [0, 1].

    Ranks, and parts of a batch, have different numbers of labelled pixels. All divide by the ranks'
    mean count, so the mean over ranks of losses and gradients is that of the global batch.
    """

    names = ("loss", "pixel_accuracy")

    def __init__(self, model: DeepLab, config: DeepLabConfig, process: Process = ALONE) -> None:
        super().__init__(model, process, precision=config.precision, clip_norm=config.clip_norm)
        self.optimizer = build_optimizer(model, config)
        self.config, self.frozen_norm = config, model.frozen_norm
        self.remedy = f"lower lr (now {config.lr}), or set clip_norm"

    def whole(self, batch: CropBatch, moment: Moment) -> Tensor:
        """Return the ranks' mean number of labelled pixels at the size of the loss; at least 1."""
        labels = self._labels(batch.targets)
        return self.process.mean((labels != IGNORE_INDEX).sum().float()).clamp_min(1)

    def terms(self, forward: Forward, part: CropBatch, whole: Tensor) -> Tensor:
        """Return a part's share of the loss and of the pixel accuracy: [2]."""
        inputs = network_inputs(part.pixels, part.boxes, NO_VIEWS)[0]
        logits = forward(inputs.contiguous(memory_format=torch.channels_last))
        if self.config.loss_size == "image":
            logits = resized_map(logits, part.targets.shape[-2:])  # [B, L, S, S]
        labels = self._labels(part.targets)  # [B, S, S] or [B, h, w]
        loss = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_INDEX, reduction="sum")
        valid = labels != IGNORE_INDEX
        right = ((logits.detach().argmax(1) == labels) & valid).sum()
        return torch.stack([loss, right]) / whole

    def _labels(self, labels: Tensor) -> Tensor:
        """Return label maps [B, S, S] at the size of the loss: [B, S, S] or [B, h, w]."""
        if self.config.loss_size == "image":
            return labels
        size = -(-labels.shape[-1] // self.config.output_stride)
        return nearest_labels(labels, (size, size))


def build_optimizer(model: DeepLab, config: DeepLabConfig) -> torch.optim.SGD:
    """Return SGD over backbone, classifiers' weights and classifiers' biases, each at its rate."""
    groups, decay = model.parameter_groups(), config.weight_decay
    bias_decay = decay if config.head_bias_decay else 0.0
    return sgd(
        (
            (groups["backbone"], config.lr, decay),
            (groups["head_weights"], config.lr * config.head_lr_multiplier, decay),
            (groups["head_biases"], config.lr * config.head_bias_lr_multiplier, bias_decay),
        ),
        config.momentum,
    )


def load_trained(checkpoints: CheckpointFolder, config: DeepLabConfig, num_classes: int) -> DeepLab:
    """Return the network of the last checkpoint, in evaluation mode; needs no initial weights.

    Raises NotTrainedError if it cannot be read, or the training has not ended.
    """
    with DRAWING:
        model = DeepLab(config.model_copy(update={"weights": "none"}), num_classes)
    done = checkpoints.restore(model).iteration
    if done < config.iterations:
        raise NotTrainedError(
            f"{checkpoints.folder}: {done:,} of {config.iterations:,} iterations can be read; "
            "train the rest"
        )
    return model.to(memory_format=torch.channels_last).eval()
