"""A set of images refined by the dense CRF in two processes against one.

Usage: python -m benchmarks.labels.crf_processes. Drawn pictures of 500 x 375 with two smooth maps
each. Starting the processes is included both times. This file imports no torch, as they import it
again. Meaningful only with two idle cores.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.ratios import faster
from wsss.basics.pool import pool_map
from wsss.data.drawn.folder import draw_voc
from wsss.labels.refine.crf import crf_label
from wsss.segmentation_config import CrfConfig

NUM_IMAGES, ROUNDS = 24, 2
SIZE = (500, 375)
LABELS = (7, 14)
SCORE = 0.3
Job = tuple[NDArray[np.uint8], NDArray[np.float32]]


def jobs(count: int, root: Path | None = None) -> list[tuple[str, Job]]:
    """Return (name, (pixels [H, W, 3], maps [2, H, W] in 0..1)) of images, drawn without a root."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        if root is None:
            root = draw_voc(Path(folder) / "voc", num_train=count, num_extra=1, num_val=1)
        paths = sorted((root / "JPEGImages").glob("*.jpg"))[:count]
        images = [np.array(Image.open(path).convert("RGB").resize(SIZE)) for path in paths]
    return [(str(index), (image, smooth_maps(rng))) for index, image in enumerate(images)]


def smooth_maps(rng: np.random.Generator) -> NDArray[np.float32]:
    coarse = rng.random((len(LABELS), 8, 10), dtype=np.float32)
    maps = [Image.fromarray(one).resize(SIZE, Image.Resampling.BILINEAR) for one in coarse]
    stacked = np.stack([np.asarray(one) for one in maps])
    return stacked / stacked.max((1, 2), keepdims=True)


def label(job: Job) -> NDArray[np.uint8]:
    return crf_label(*job, LABELS, SCORE, CrfConfig())


def refine(named: list[tuple[str, Job]], num_workers: int) -> dict[str, NDArray[np.uint8]]:
    return dict(pool_map(label, named, num_workers=num_workers))


def main() -> None:
    named = jobs(NUM_IMAGES)
    one, two = (refine(named, number) for number in (1, 2))
    assert all(np.array_equal(one[name], two[name]) for name, _ in named)
    row = f"{len(named)} images by CRF: 2 processes against 1"
    faster(row, partial(refine, named, 2), partial(refine, named, 1), goal=1.9, rounds=ROUNDS)


if __name__ == "__main__":
    main()
