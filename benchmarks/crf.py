"""Ratios of the dense CRF and of PAMR, each pair timed alternately in one run on the same inputs.

Usage: python benchmarks/crf.py [--pamr] [folder in VOC layout]. Without a folder, a picture is
drawn by code. Prints the median ratio (peer's time / ours), its spread, and seconds per image.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from wsss.data.drawn.folder import draw_voc
from wsss.labels.pseudo_label import score_probs
from wsss.labels.refine.crf import crf_label, dense_crf
from wsss.labels.refine.pamr import neighbour_weights, pamr_label
from wsss.segmentation_config import CrfConfig, PamrConfig

ROUNDS = 5
SIZE = (500, 375)
LABELS = (7, 14)
SCORE = 0.3
Job = tuple[NDArray[np.uint8], NDArray[np.float32]]


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object]) -> None:
    """Time both in turn and print how many times as long the peer takes."""
    ours(), peer()
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        times = []
        for run in (ours, peer):
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        ratios.append(times[1] / times[0])
        seconds.append(times[0])
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    each = statistics.median(seconds)
    print(f"{name:58} {middle:6.2f} x  ({low:.2f} to {high:.2f})  {each:.2f} s", flush=True)


def pictures(root: Path | None, count: int) -> list[Job]:
    """Return images of 500 x 375 pixels, each with two smooth CAMs."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            root = draw_voc(Path(folder) / "voc", num_train=count, num_extra=1, num_val=1)
        paths = sorted((root / "JPEGImages").glob("*.jpg"))[:count]
        images = [np.array(Image.open(path).convert("RGB").resize(SIZE)) for path in paths]
    coarse = torch.from_numpy(rng.random((count, len(LABELS), 8, 10), dtype=np.float32))
    cams = F.interpolate(coarse, size=SIZE[::-1], mode="bilinear", align_corners=False)
    cams /= cams.amax((2, 3), keepdim=True)
    return list(zip(images, cams.numpy(), strict=True))


def present_labels(job: Job) -> None:
    """One image: the three labels it holds against all 21 of VOC."""
    image, cams = job
    few = score_probs(cams, LABELS, SCORE)
    every = np.zeros((21, *few.shape[1:]), np.float32)
    every[[0, *(k + 1 for k in LABELS)]] = few
    config = CrfConfig()
    name = "dense CRF: 3 present labels against 21"
    ours, peer = (partial(dense_crf, image, probs, config) for probs in (few, every))
    compare(name, ours, peer)


def label(job: Job) -> NDArray[np.uint8]:
    return crf_label(*job, LABELS, SCORE, CrfConfig())


def pamr_against_crf(job: Job) -> None:
    """One image, three labels: PAMR against the CRF; other results, the same purpose."""
    ours = partial(pamr_label, *job, LABELS, SCORE, PamrConfig())
    compare("PAMR against dense CRF", ours, partial(label, job))


def pamr_neighbours(job: Job) -> None:
    """One image: neighbours summed one by one as views against all stacked, as the authors do."""
    image, cams = job
    config = PamrConfig()
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()

    def peer() -> NDArray[np.float32]:
        weights = neighbour_weights(pixels, config.dilations)
        masks = torch.from_numpy(cams)
        for _ in range(config.iterations):
            masks = (stacked(masks, config.dilations) * weights).sum(1)
        return masks.numpy()

    ours = partial(pamr_label, image, cams, LABELS, SCORE, config)
    assert (
        ours() == np.where((best := peer()).max(0) > SCORE, np.array(LABELS)[best.argmax(0)] + 1, 0)
    ).mean() > 0.999
    compare("PAMR: neighbours one by one against stacked", ours, peer)


def stacked(x: torch.Tensor, dilations: tuple[int, ...]) -> torch.Tensor:
    """[C, H, W] -> [C, N, H, W] by one convolution with shifting kernels for each dilation."""
    kernels = torch.eye(9)[[0, 1, 2, 3, 5, 6, 7, 8]].reshape(8, 1, 3, 3)
    shifted = [
        F.conv2d(F.pad(x[:, None], [d] * 4, mode="replicate"), kernels, dilation=d)
        for d in dilations
    ]
    return torch.cat(shifted, 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder in VOC layout")
    parser.add_argument("--pamr", action="store_true", help="also PAMR")
    chosen = parser.parse_args()
    jobs = pictures(chosen.data, 1)
    print(f"{'peer time / ours, 500 x 375 pixels':58} median    spread         ours per image")
    present_labels(jobs[0])
    if chosen.pamr:
        pamr_neighbours(jobs[0])
        pamr_against_crf(jobs[0])
