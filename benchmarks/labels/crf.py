"""Ratios of the dense CRF and of PAMR, for one image.

Usage: python -m benchmarks.labels.crf [--pamr] [folder in VOC layout]. Without a folder, a picture
is drawn by code.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.labels.crf_processes import LABELS, SCORE, Job, jobs, label
from benchmarks.ratios import faster
from wsss.labels.pseudo_label import score_probs
from wsss.labels.refine.crf import dense_crf
from wsss.labels.refine.pamr import neighbour_weights, pamr_label
from wsss.segmentation_config import CrfConfig, PamrConfig


def present_labels(job: Job) -> None:
    """The three labels that an image holds against all 21 of VOC."""
    image, cams = job
    few = score_probs(cams, SCORE)
    every = np.zeros((21, *few.shape[1:]), np.float32)
    every[[0, *(k + 1 for k in LABELS)]] = few
    config = CrfConfig()
    name = "dense CRF: 3 present labels against 21"
    ours, peer = (partial(dense_crf, image, probs, config) for probs in (few, every))
    faster(name, ours, peer, goal=2)


def pamr_against_crf(job: Job) -> None:
    """Three labels: PAMR against the CRF, which has the same purpose but other results."""
    ours = partial(pamr_label, *job, LABELS, SCORE, PamrConfig())
    faster("PAMR against dense CRF", ours, partial(label, job))


def pamr_neighbours(job: Job) -> None:
    """Neighbours summed one by one, as views, against all stacked, as the authors do."""
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
    faster("PAMR: neighbours one by one against stacked", ours, peer)


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
    ((_, job),) = jobs(1, chosen.data)
    present_labels(job)
    if chosen.pamr:
        pamr_neighbours(job)
        pamr_against_crf(job)
