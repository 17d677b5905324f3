"""What is checked: one step of each training on a made-up batch, and pictures.

Legend: B batch, K = 20 classes, S crop size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from torch import nn

from wsss.config import NetworkConfig, Precision, RunConfig, ViewsConfig
from wsss.data.drawn.folder import draw_voc
from wsss.data.loading.batches import CropBatch
from wsss.data.voc import Sample, VocDataset
from wsss.method.views import network_inputs
from wsss.networks.backbone import build_backbone
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import build_deeplab
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS, PRESETS
from wsss.training.affinity import affinity_step, build_affinity_net
from wsss.training.cam import cam_step
from wsss.training.execution import Execution
from wsss.training.loop import Step
from wsss.training.process import Process
from wsss.training.segmentation import segmentation_step
from wsss.weights import WeightsError, file_digest

NUM_CLASSES = 20
PARTS = tuple(
    name
    for name, field in NetworkConfig.model_fields.items()
    if field.annotation is bool and name != "affinity_residual"  # a setting of a part
)
"""Switches of the focused-unfocused module."""
FULL_MODULE = {f"network.{part}": True for part in PARTS}
VIEWS = tuple(n for n, field in ViewsConfig.model_fields.items() if field.annotation is bool)
BOTH_VIEWS = {f"views.{view}": True for view in VIEWS}
CELLS: dict[str, dict[str, Any]] = {"B0": {}, "F0": FULL_MODULE, "F3": FULL_MODULE | BOTH_VIEWS}
"""B0: bare network, one view; F0: the full module; F3: the full module and both views."""
BACKBONES = get_args(NetworkConfig.model_fields["backbone"].annotation)
VOC_SIZE = (500, 375)
"""Width and height of a typical picture of VOC."""
NUM_ENLARGED = 16


@dataclass(frozen=True)
class Weights:
    """Initial weights for one backbone; the others start from random weights."""

    backbone: str = ""
    name: str = "none"
    """In a configuration."""
    file: Path | None = None

    def of(self, backbone: str) -> tuple[str, Path | None]:
        """Return a backbone's weights: name in the configuration, and file."""
        return (self.name, self.file) if backbone == self.backbone else ("none", None)


def read_weights(path: Path | None) -> Weights:
    """Return the weights of a file. Raises WeightsError if it fits no backbone."""
    if path is None:
        return Weights()
    name, reasons = file_digest(path), list[str]()
    for backbone in BACKBONES:
        try:
            build_backbone(NetworkConfig(backbone=backbone, weights=name), path)
        except WeightsError as error:
            reasons.append(str(error))
        else:
            return Weights(backbone, name, path)
    raise WeightsError("\n".join(dict.fromkeys(reasons)))


@dataclass(frozen=True)
class Options:
    """What the check runs on, and for how long."""

    device: torch.device
    out: Path
    weights: Weights = Weights()
    minutes: float = 8.0
    small: bool = False
    """Small crops and batches, for a CPU."""
    preset: str = "paper"
    """For the sections that measure speed."""
    seconds: float = 2.5
    """For each speed that is measured."""

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is checked, rather than the check itself on a CPU."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Subject:
    """A training and a batch for its steps."""

    build: Callable[[], Any]
    """Makes the network, on the CPU and the same each time."""
    step: Callable[[Any, torch.device, Precision, Execution], Step]
    """Moves a network to a device and returns its step there."""
    batch: CropBatch
    """On the CPU."""

    def pinned(self, device: torch.device) -> CropBatch:
        """Return the batch as the loader does: in pinned memory for a GPU."""
        if device.type != "cuda":
            return self.batch
        return CropBatch(*(part.pin_memory() for part in self.batch))


def cam_subject(config: RunConfig, weights: Weights) -> Subject:
    """Return a CAM training; new frozen batch norms are calibrated on made-up images."""
    name, file = weights.of(config.network.backbone)
    config = apply_overrides(config, {"network.weights": name})
    batch = made_up_batch(config.train.batch_size, config.train.crop_size)

    def build() -> CamNet:
        torch.manual_seed(config.rng_seed)
        model = CamNet(config.network, NUM_CLASSES, weights_file=file)
        model = model.to(memory_format=torch.channels_last)
        if model.frozen_norm and model.new_norms:
            with model.calibrating():
                model(network_inputs(batch.pixels[:2], batch.boxes[:2], config.views)[0])
        return model

    def step(model: CamNet, device: torch.device, precision: Precision, how: Execution) -> Step:
        own = apply_overrides(config, {"train.precision": precision})
        return cam_step(model, own, process=Process(device=device), execution=how)

    return Subject(build, step, batch)


def other_subjects(preset: str, crop: int, weights: Weights) -> dict[str, Subject]:
    """Return a preset's trainings of the other two networks, with two images of about `crop`."""
    network, deeplab = PRESETS[preset].network, DEEPLAB_PRESETS[preset]
    walk = LABEL_PRESETS[preset].random_walk.model_copy(update={"crop_size": crop, "batch_size": 2})
    name, own_file = weights.of(network.backbone)
    network = network.model_copy(update={"weights": name})
    name, file = weights.of(deeplab.backbone)
    update = {"weights": name, "crop_size": crop + 1, "batch_size": 2}
    deeplab = deeplab.model_copy(update=update)

    def stepping(step: Any, config: Any) -> Callable[..., Step]:
        def take(model: Any, device: torch.device, precision: Precision, how: Execution) -> Step:
            own = config.model_copy(update={"precision": precision})
            return step(model, own, process=Process(device=device), execution=how)

        return take

    return {
        "DeepLab": Subject(
            lambda: build_deeplab(deeplab, NUM_CLASSES, weights_file=file),
            stepping(segmentation_step, deeplab),
            made_up_batch(2, crop + 1, label_maps=True),
        ),
        "affinity network": Subject(
            lambda: build_affinity_net(network, walk, weights_file=own_file),
            stepping(affinity_step, walk),
            made_up_batch(2, crop, label_maps=True),
        ),
    }


def made_up_batch(size: int, crop: int, *, label_maps: bool = False) -> CropBatch:
    """Return a batch of blobs and noise with an eighth of padding, the same each time.

    label_maps: targets are label maps [B, S, S], else image-level labels [B, K].
    """
    generator = torch.Generator().manual_seed(0)
    blots = torch.rand(size, 3, 5, 5, generator=generator) * 200
    pixels = nn.functional.interpolate(blots, size=(crop, crop), mode="bilinear")
    pixels = (pixels + 55 * torch.rand(pixels.shape, generator=generator)).to(torch.uint8)
    end = crop - crop // 8
    pixels[:, :, end:] = 0
    boxes = torch.tensor([[0, 0, end, crop]] * size)
    if label_maps:
        cells = torch.randint(0, 4, (size, 1, 6, 6), generator=generator).float()
        targets = nn.functional.interpolate(cells, size=(crop, crop), mode="nearest")[:, 0]
        targets = torch.where(targets == 3, 255, targets).to(torch.uint8)
        targets[:, end:] = 255
    else:
        targets = (torch.rand(size, NUM_CLASSES, generator=generator) < 0.1).float()
        targets[:, 0] = 1
    return CropBatch(pixels.contiguous(memory_format=torch.channels_last), boxes, targets)


@dataclass(frozen=True)
class Pictures:
    """A data set in VOC layout: the user's, or drawn."""

    dataset: VocDataset
    training: list[Sample]
    large: list[Sample]
    """Training images of VOC's size: the user's own, or drawn ones enlarged."""
    are_drawn: bool

    @property
    def source(self) -> str:
        """Their name on the page."""
        return "drawn pictures" if self.are_drawn else "pictures of --data"


def find_pictures(root: Path | None, out: Path) -> Pictures:
    """Return the user's pictures, or draw some. Raises DataError for a folder of another layout."""
    dataset = VocDataset(root or draw_voc(out / "drawn"))
    training = dataset.samples(split_of(dataset, "train_aug", "train"))
    if root is not None:
        return Pictures(dataset, training, training, are_drawn=False)
    large = [enlarged(sample, out / "enlarged") for sample in training[:NUM_ENLARGED]]
    return Pictures(dataset, training, large, are_drawn=True)


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
