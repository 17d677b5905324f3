"""The dense CRF: present labels against all, and two processes against one.

Usage: python -m benchmarks.labels.crf. Drawn pictures of 500 x 375 with two smooth maps each.
Starting the processes is included, and needs two idle cores. This file imports no torch, as the
processes import it again.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.pictures import VOC_SIZE, voc_sized
from benchmarks.ratios import faster
from wsss.basics.pool import pool_map
from wsss.labels.pseudo_label import score_probs
from wsss.labels.refine.crf import crf_label, dense_crf
from wsss.segmentation_config import CrfConfig

NUM_IMAGES = 24
LABELS = (7, 14)
SCORE = 0.3
Job = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Pixels [H, W, 3] and maps [2, H, W] in 0..1."""


def jobs(folder: Path) -> list[tuple[str, Job]]:
    rng = np.random.default_rng(0)
    samples = voc_sized(folder / "voc", NUM_IMAGES).samples("train")
    pixels = [np.array(Image.open(sample.image_path)) for sample in samples]
    return [(str(index), (image, smooth_maps(rng))) for index, image in enumerate(pixels)]


def smooth_maps(rng: np.random.Generator) -> NDArray[np.float32]:
    coarse = rng.random((len(LABELS), 8, 10), dtype=np.float32)
    maps = [Image.fromarray(one).resize(VOC_SIZE, Image.Resampling.BILINEAR) for one in coarse]
    stacked = np.stack([np.asarray(one) for one in maps])
    return stacked / stacked.max((1, 2), keepdims=True)


def present_labels(job: Job) -> None:
    """The three labels that an image holds against all 21 of VOC."""
    image, cams = job
    few = score_probs(cams, SCORE)
    every = np.zeros((21, *few.shape[1:]), np.float32)
    every[[0, *(k + 1 for k in LABELS)]] = few
    ours, peer = (partial(dense_crf, image, probs, CrfConfig()) for probs in (few, every))
    faster("dense CRF: 3 present labels against 21", ours, peer, goal=2)


def label(job: Job) -> NDArray[np.uint8]:
    return crf_label(*job, LABELS, SCORE, CrfConfig())


def refine(named: list[tuple[str, Job]], num_workers: int) -> dict[str, NDArray[np.uint8]]:
    return dict(pool_map(label, named, num_workers=num_workers))


def two_processes(named: list[tuple[str, Job]]) -> None:
    one, two = (refine(named, number) for number in (1, 2))
    assert all(np.array_equal(one[name], two[name]) for name, _ in named)
    row = f"{len(named)} images by CRF: 2 processes against 1"
    faster(row, partial(refine, named, 2), partial(refine, named, 1), goal=1.9, rounds=2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        found = jobs(Path(name))
    present_labels(found[0][1])
    two_processes(found)
