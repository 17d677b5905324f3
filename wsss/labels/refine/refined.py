"""From an image's CAMs to the label map that trains a segmentation network, refined as asked.

Legend: P present classes of one image, H W its size.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsss.data.pictures.image import as_array, read_image
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import Sample
from wsss.labels.cam_files import cams_of
from wsss.labels.pseudo_label import confident_label, pseudo_label
from wsss.labels.refine.crf import crf_label
from wsss.labels.refine.pamr import pamr_label
from wsss.segmentation_config import PseudoLabelConfig


@dataclass(frozen=True)
class LabelJob:
    """One image's label map, for a worker process to make."""

    sample: Sample
    cams: Path
    target: Path
    config: PseudoLabelConfig
    source: str
    """What it is made from, which the file records."""
    device: torch.device
    """Where PAMR refines it."""


def write_label(job: LabelJob) -> None:
    """Write the label PNG of one image."""
    image, labels = as_array(read_image(job.sample.image_path)), job.sample.labels
    cams = cams_of(job.cams, labels, image.shape[:2])
    found = label_map(image, cams, labels, job.config, job.device)
    write_label_png(job.target, found, source=job.source)


def label_map(
    image: NDArray[np.uint8],
    cams: NDArray[np.float32],
    labels: tuple[int, ...],
    config: PseudoLabelConfig,
    device: torch.device,
) -> NDArray[np.uint8]:
    """Return [H, W]: 0 background, class k as k + 1, and 255 where `confident` is in doubt.

    image: [H, W, 3]; cams: [P, H, W] in [0, 1], after the random walk if there is one; device:
    where PAMR computes.
    """

    def at(score: float) -> NDArray[np.uint8]:
        if config.refinement in ("crf", "random_walk_crf"):
            return crf_label(image, cams, labels, score, config.crf)
        if config.refinement == "pamr":
            return pamr_label(image, cams, labels, score, config.pamr, device)
        return pseudo_label(cams, labels, score)

    if config.background == "fixed":
        return at(config.score)
    return confident_label(at, config.confident_foreground, config.confident_background)
