"""From an image's CAMs to the label map that trains a segmentation network, refined as asked.

Legend: P present classes of one image, H W its size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.data.classes import IGNORE_INDEX
from wsss.data.image import as_array
from wsss.data.loading import read_rgb
from wsss.data.mask import write_label_png
from wsss.data.voc import Sample
from wsss.labels.cam_files import cams_of
from wsss.labels.pseudo_label import pseudo_label
from wsss.labels.refine.crf import crf_label
from wsss.labels.refine.pamr import pamr_label
from wsss.segmentation_config import PseudoLabelConfig

LabelOf = Callable[[float], NDArray[np.uint8]]
"""Gives the label map at a background score."""


@dataclass(frozen=True)
class LabelJob:
    """One image's label map to be made by a worker process."""

    sample: Sample
    cams: Path
    target: Path
    config: PseudoLabelConfig
    source: str
    """What the file says that it was made from."""


def write_label(job: LabelJob) -> None:
    """Write the label PNG of one image; runs in any process."""
    image, labels = as_array(read_rgb(job.sample)), job.sample.labels
    cams = cams_of(job.cams, labels, image.shape[:2])
    write_label_png(job.target, label_map(image, cams, labels, job.config), source=job.source)


def label_map(
    image: NDArray[np.uint8],
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    config: PseudoLabelConfig,
) -> NDArray[np.uint8]:
    """Return [H, W]: 0 background, class k as k + 1, and 255 where `confident` leaves a doubt.

    image: [H, W, 3]; cams: [P, H, W] in [0, 1], behind the random walk if there is one. Confident
    labels are foreground where they are at the higher score, background where they are at the
    lower one (IRN).
    """

    def at(score: float) -> NDArray[np.uint8]:
        if config.refinement in ("crf", "random_walk_crf"):
            return crf_label(image, cams, labels, score, config.crf)
        if config.refinement == "pamr":
            return pamr_label(image, cams, labels, score, config.pamr)
        return pseudo_label(cams, labels, score)

    if config.background == "fixed":
        return at(config.score)
    return _confident(at, config)


def _confident(at: LabelOf, config: PseudoLabelConfig) -> NDArray[np.uint8]:
    sure, maybe = at(config.confident_foreground), at(config.confident_background)
    label = np.where(sure == 0, np.uint8(IGNORE_INDEX), sure)
    return np.where((sure == 0) & (maybe == 0), np.uint8(0), label)
