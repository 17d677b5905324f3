"""Ratios of the input pipeline: against an IRN-style loader, and what loading adds to a step.

Usage: python benchmarks/loading.py [folder in VOC layout]. Without a folder, the real pictures
beside the checkout, else pictures of 500 x 375 drawn by code. One process and thread, which keeps
the memory it frees, as trainings do. Compared:

- a batch of 16 crops of 512 from long sides of 320..640, as the training loop takes it: ours as
  another trial of the seed has kept them (every trial of a node but the first), ours from the
  shared map and ours decoding each image, against the IRN-style loader, which resizes whole
  images (bicubic) and normalises on the CPU. Theirs is float and normalised, ours 8-bit; a row of
  its own has ours with the views' normalisation, which is otherwise part of the training step.
- steps of the CAM training (one view, the lightest, so that loading weighs most) with loading
  against the same steps on the same batches held in memory.

Kept crops, crops from the map, decoded crops and the batches in memory are asserted equal bit for
bit. The peer's pixels are not ours: another filter; its normalisation is asserted to be ours.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from ratios import faster, overhead
from torch import Tensor
from torch.utils.data import default_collate
from wsss.data.decoded import DecodedImages
from wsss.data.shared_crops import SharedCrops, share_crops
from wsss.data.sharing import share_decoded

from wsss.config import RunConfig, TrainConfig
from wsss.data.drawn import draw_voc
from wsss.data.loading import CropBatch, CropDataset, CropLoader
from wsss.data.voc import Sample, VocDataset
from wsss.method.views import IMAGENET_MEAN, IMAGENET_STD, network_inputs, normalise
from wsss.networks.cam_net import CamNet
from wsss.overrides import apply_overrides
from wsss.presets import SHORT, TINY
from wsss.training.cam import TrainingStep
from wsss.training.optim import build_sgd
from wsss.training.process import Process, pick_device

REAL = Path(__file__).parents[2] / "shared" / "voc" / "VOC2012"
SIZE = (500, 375)
NUM_PICTURES, NUM_DRAWN, BATCH = 32, 80, 16
STEP_ROUNDS = {"short": 2, "tiny": 9}


def pictures(given: Path | None, folder: Path) -> tuple[Path, list[Sample]]:
    """Return a folder in VOC layout and pictures of it of VOC's size."""
    root = given or (REAL if REAL.exists() else None)
    if root is None:
        root = draw_voc(folder / "large", num_train=NUM_PICTURES, num_extra=1, num_val=1)
        for path in (root / "JPEGImages").glob("*.jpg"):
            Image.open(path).resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=95)
    return root, VocDataset(root).samples("train")[:NUM_PICTURES]


# The IRN-style loader


def irn_crop(sample: Sample, train: TrainConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a crop by the usual steps: [3, S, S], normalised, 0 in the padding."""
    image = Image.open(sample.image_path).convert("RGB")
    scale = rng.integers(train.min_long_side, train.max_long_side + 1) / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    if rng.integers(2):
        pixels = np.fliplr(pixels)
    return np.transpose(placed(float_normalise(pixels), train.crop_size, rng), (2, 0, 1))


def float_normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalise channel by channel, which numpy does faster than all at once."""
    normalised = np.empty(pixels.shape, np.float32)
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        normalised[..., channel] = (pixels[..., channel] / 255.0 - mean) / std
    return normalised


def placed(
    image: NDArray[np.float32], crop_size: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Cut a random window, or put a smaller image at a random place: [S, S, 3]."""
    container = np.zeros((crop_size, crop_size, 3), np.float32)
    source, target = [], []
    for size in image.shape[:2]:
        offset = int(rng.integers(abs(size - crop_size) + 1))
        taken = min(size, crop_size)
        start, to = (offset, 0) if size > crop_size else (0, offset)
        source.append(slice(start, start + taken))
        target.append(slice(to, to + taken))
    container[tuple(target)] = image[tuple(source)]
    return container


def irn_batch(samples: list[Sample], train: TrainConfig, rng: np.random.Generator) -> Tensor:
    return default_collate([irn_crop(sample, train, rng) for sample in samples])


# Loading


def keep_crops(samples: list[Sample], train: TrainConfig, folder: Path, epochs: int) -> SharedCrops:
    """Load crops as a first trial does, and return what it has kept."""
    found = share_crops(samples, train, rng_seed=0, folder=folder)
    assert found.crops, found.note
    crops = CropDataset(samples, 20, train, rng_seed=0, kept=found.crops)
    for epoch in range(epochs):
        for index in range(len(samples)):
            crops[epoch, index]
    return found.crops


def crops_against_irn(samples: list[Sample], decoded: DecodedImages, folder: Path) -> None:
    train = RunConfig().train
    rng, indices = np.random.default_rng(0), itertools.count(step=BATCH)
    plain = CropDataset(samples, 20, train, rng_seed=0)
    mapped = CropDataset(samples, 20, train, rng_seed=0, decoded=decoded)
    kept_crops = keep_crops(samples, train, folder, 2)
    kept = CropDataset(samples, 20, train, rng_seed=0, kept=kept_crops)
    for index in range(len(samples)):
        assert kept_crops.read(0, index)
        for other in (mapped[0, index], kept[0, index]):
            assert all(torch.equal(*pair) for pair in zip(plain[0, index], other, strict=True))
    ramp = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    theirs = torch.from_numpy(float_normalise(ramp)).permute(2, 0, 1)[None]
    assert torch.allclose(
        normalise(torch.from_numpy(ramp).permute(2, 0, 1)[None]), theirs, atol=1e-6
    )

    def batch(crops: CropDataset) -> CropBatch:
        first = next(indices)
        places = range(first, first + BATCH)
        keys = [(index // len(crops) % 2, index % len(crops)) for index in places]
        return CropBatch(*default_collate([crops[key] for key in keys]))

    def ready(crops: CropDataset) -> Tensor:
        made = batch(crops)
        return network_inputs(made.pixels, made.boxes, RunConfig().views)

    def peer() -> Tensor:
        first = next(indices)
        chosen = [samples[index % len(samples)] for index in range(first, first + BATCH)]
        return irn_batch(chosen, train, rng)

    assert peer().shape == batch(mapped).pixels.shape == ready(mapped)[0].shape
    name = f"{BATCH} crops of 512, IRN-style loader against ours,"
    faster(f"{name} kept by another trial", partial(batch, kept), peer, goal=5)
    faster(f"{name} shared map", partial(batch, mapped), peer, goal=5)
    faster(f"{name} decoding each image", partial(batch, plain), peer)
    faster(f"{name} shared map and normalisation", partial(ready, mapped), peer)
    faster(f"{BATCH} crops of 512, decoding against shared map", *(
        partial(batch, crops) for crops in (mapped, plain)
    ))  # fmt: skip
    faster(f"{BATCH} crops of 224 (short), decoding against shared map", *(
        partial(batch, CropDataset(samples, 20, SHORT.train, rng_seed=0, decoded=d))
        for d in (decoded, None)
    ))  # fmt: skip


# Steps


def steps_against_cached(
    name: str, config: RunConfig, samples: list[Sample], num_classes: int, decoded: DecodedImages,
    folder: Path,
) -> None:  # fmt: skip
    """Time an epoch of training steps with loading against one on batches in memory."""
    config = apply_overrides(config, {"network.weights": "none", "train.lr": 1e-6})
    torch.manual_seed(0)
    model = CamNet(config.network, num_classes).to(memory_format=torch.channels_last).train()
    optimizer = build_sgd(*model.parameter_groups(), config.train)
    step = TrainingStep(model, optimizer, config, Process())
    options = {
        "kept by another trial": {"kept": keep_crops(samples, config.train, folder, 1)},
        "shared map": {"decoded": decoded},
        "decoding each image": {},
    }
    loaders = {
        how: CropLoader(CropDataset(samples, num_classes, config.train, rng_seed=0, **given))
        for how, given in options.items()
    }
    cached = list(loaders["decoding each image"].epoch(0))
    for loader in loaders.values():
        for one, other in zip(cached, loader.epoch(0), strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))

    def epoch(batches: Callable[[], Iterator[CropBatch]]) -> None:
        for iteration, batch in enumerate(batches()):
            step(batch, iteration)

    kept = partial(epoch, partial(iter, cached))
    for how, loader in loaders.items():
        row = f"{name}: steps with loading, {how}, against cached tensors"
        goal = None if how == "decoding each image" else 1.05
        overhead(
            row, partial(epoch, partial(loader.epoch, 0)), kept, goal=goal, rounds=STEP_ROUNDS[name]
        )


def main() -> None:
    """Print all rows."""
    pick_device(1)
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root, samples = pictures(given, folder)
        shared = share_decoded(samples, folder=folder / "maps")
        assert shared.images, shared.note
        print(f"pictures of {root}; Pillow {Image.__version__}, 1 thread; {shared.note}")
        crops_against_irn(samples, shared.images, folder / "crops")
        num_classes = len(VocDataset(root).classes)
        steps_against_cached("short", SHORT, samples, num_classes, shared.images, folder / "crops")
        drawn = VocDataset(draw_voc(folder / "drawn", num_train=NUM_DRAWN, num_extra=1, num_val=1))
        samples = drawn.samples("train")
        small = share_decoded(samples, folder=folder / "maps").images
        assert small
        steps_against_cached("tiny", TINY, samples, len(drawn.classes), small, folder / "crops")


if __name__ == "__main__":
    main()
