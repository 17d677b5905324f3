"""Ratios of the input pipeline: against an IRN-style loader, and what loading adds to a step.

Usage: python -m benchmarks.training.loading [folder in VOC layout]. Without a folder, pictures of
500 x 375 drawn by code. One process and thread, nothing is cached; freed memory is kept, as
trainings do. Compared:

- a batch of 16 crops from long sides of 320..640 to 512, as the training loop uses it, against the
  IRN-style loader: Pillow resizes, NumPy normalises. Theirs is float and normalised, ours 8-bit;
  another row has ours with the views' normalisation, which is otherwise part of the step.
- steps of the CAM training (one view, the fastest, where loading matters most) with loading against
  the same steps on the same batches held in memory.

Normalised crops are asserted equal to the peer's within 2 of 255, and batches in memory bit for bit
to those which a loader makes again.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from benchmarks.pictures import voc_sized
from benchmarks.ratios import faster, overhead
from wsss.config import RunConfig, TrainConfig
from wsss.data.drawn.folder import draw_voc
from wsss.data.loading.batches import CROP_STREAM, CropBatch, CropDataset, Loader, collate
from wsss.data.voc import Sample, VocDataset
from wsss.method.views import IMAGENET_MEAN, IMAGENET_STD, network_inputs, normalise
from wsss.networks.cam_net import CamNet
from wsss.overrides import apply_overrides
from wsss.presets import SHORT, TINY
from wsss.training.cam import CamStep
from wsss.training.process import pick_device

NUM_PICTURES, NUM_DRAWN, BATCH = 32, 80, 16
ROUNDS = 9
STEP_ROUNDS = {"short": 2, "tiny": 9}


# The IRN-style loader


def irn_crop(sample: Sample, train: TrainConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a crop by the usual steps: [3, S, S], normalised, 0 in the padding.

    The random draws are in our order, so that equal seeds give equal crops.
    """
    image = Image.open(sample.image_path).convert("RGB")
    scale = rng.integers(train.min_long_side, train.max_long_side + 1) / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
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
    """Cut a random window, or put a smaller image at a random place, flipped or not: [S, S, 3]."""
    container = np.zeros((crop_size, crop_size, 3), np.float32)
    source, target = [], []
    for size in image.shape[1::-1]:
        offset = int(rng.integers(abs(size - crop_size) + 1))
        taken = min(size, crop_size)
        start, to = (offset, 0) if size > crop_size else (0, offset)
        source.append(slice(start, start + taken))
        target.append(slice(to, to + taken))
    shown = container[:, ::-1] if rng.integers(2) else container
    shown[tuple(target[::-1])] = image[tuple(source[::-1])]
    return container


def irn_batch(samples: list[Sample], train: TrainConfig, rng: np.random.Generator) -> Tensor:
    return default_collate([irn_crop(sample, train, rng) for sample in samples])


# Loading


def crops_against_irn(samples: list[Sample]) -> None:
    train = RunConfig().train
    crops = CropDataset(samples, 20, train, rng_seed=0)
    assert_equal_crops(crops, train)
    rng, starts = np.random.default_rng(0), itertools.count(step=BATCH)

    def batch() -> CropBatch:
        first = next(starts)
        keys = [divmod(place, len(crops)) for place in range(first, first + BATCH)]
        return collate([crops[key] for key in keys])

    def ready() -> Tensor:
        made = batch()
        return network_inputs(made.pixels, made.boxes, RunConfig().views)

    def peer() -> Tensor:
        first = next(starts)
        chosen = [samples[place % len(samples)] for place in range(first, first + BATCH)]
        return irn_batch(chosen, train, rng)

    assert peer().shape == batch().pixels.shape == ready()[0].shape
    name = f"{BATCH} crops of 512, first trial, IRN-style loader against ours"
    faster(name, batch, peer, goal=5, rounds=ROUNDS)
    faster(f"{name}, normalised", ready, peer, rounds=ROUNDS)


def assert_equal_crops(crops: CropDataset, train: TrainConfig) -> None:
    ramp = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    theirs = torch.from_numpy(float_normalise(ramp)).permute(2, 0, 1)[None]
    ours = normalise(torch.from_numpy(ramp).permute(2, 0, 1)[None])
    assert torch.allclose(ours, theirs, atol=1e-6)
    for index, sample in enumerate(crops.samples):
        pixels, box, _ = crops[0, index]
        ours = network_inputs(pixels[None], box[None], RunConfig().views)[0, 0]
        rng = np.random.default_rng([0, CROP_STREAM, 0, index])
        theirs = torch.from_numpy(irn_crop(sample, train, rng).copy())
        assert (ours - theirs).abs().max() <= 2.01 / 255 / min(IMAGENET_STD)


# Steps


def steps_against_cached(
    name: str, config: RunConfig, samples: list[Sample], num_classes: int
) -> None:
    """Time an epoch of training steps with loading against one on batches in memory."""
    config = apply_overrides(config, {"network.weights": "none", "train.lr": 1e-6})
    torch.manual_seed(0)
    model = CamNet(config.network, num_classes).to(memory_format=torch.channels_last).train()
    step = CamStep(model, config)
    loader = Loader(
        CropDataset(samples, num_classes, config.train, rng_seed=0), config.train.batch_size
    )
    cached = list(loader.epoch(0))
    for one, other in zip(cached, loader.epoch(0), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))

    def epoch(batches: Callable[[], Iterator[CropBatch]]) -> None:
        for batch in batches():
            step(batch)

    overhead(
        f"{name}: steps with loading against the same on batches in memory",
        partial(epoch, partial(loader.epoch, 0)),
        partial(epoch, partial(iter, cached)),
        goal=1.05,
        rounds=STEP_ROUNDS[name],
    )


def main() -> None:
    """Print all rows."""
    pick_device(1)
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = VocDataset(given) if given else voc_sized(folder / "large", NUM_PICTURES)
        samples = dataset.samples("train")[:NUM_PICTURES]
        print(f"pictures of {dataset.root}; Pillow {PIL.__version__}, 1 thread")
        crops_against_irn(samples)
        steps_against_cached("short", SHORT, samples, len(dataset.classes))
        drawn = VocDataset(draw_voc(folder / "drawn", num_train=NUM_DRAWN, num_extra=1, num_val=1))
        steps_against_cached("tiny", TINY, drawn.samples("train"), len(drawn.classes))


if __name__ == "__main__":
    main()
