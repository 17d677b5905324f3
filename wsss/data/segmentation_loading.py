"""Training crops with their label maps, equal for any number of workers and ranks.

The random streams are those of data/loading.py: an epoch's order depends on (rng_seed, epoch), a
crop on (rng_seed, epoch, image index). Image and label map are cut by one plan, so that they stay
aligned. Legend: B batch on this rank, K classes, S crop size, H W image size.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from wsss.config import TrainConfig
from wsss.data.classes import IGNORE_INDEX
from wsss.data.image import BROKEN_IMAGE
from wsss.data.loading import CROP_STREAM, read_rgb
from wsss.data.transforms import CropPlan, cut_crop, cut_labels, plan_crop
from wsss.data.voc import DataError, Sample
from wsss.segmentation_config import DeepLabConfig


class LabelledCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Training crops with labels from `labels_folder`/<id>.png, indexed by (epoch, image index).

    Raises DataError at once if a label file is missing, and when one is read that does not fit.
    """

    def __init__(
        self, samples: list[Sample], labels_folder: Path, num_classes: int, config: DeepLabConfig
    ) -> None:
        self.samples, self.labels_folder = samples, labels_folder
        self.num_classes, self.config = num_classes, config
        self.rng_seed = config.rng_seed
        missing = [s.image_id for s in samples if not self.label_path(s).is_file()]
        if missing:
            raise DataError(
                f"{labels_folder}: {len(missing)} of {len(samples)} label maps are missing, first "
                f"{missing[0]}.png; write one for every image of the split"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def label_path(self, sample: Sample) -> Path:
        """Return where an image's label map lies."""
        return self.labels_folder / f"{sample.image_id}.png"

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels uint8 [3, S, S], the content's box [4] and labels uint8 [S, S]."""
        epoch, index = key
        sample = self.samples[index]
        rng = np.random.default_rng([self.rng_seed, CROP_STREAM, epoch, index])
        image = read_rgb(sample)
        height, width = image.shape[1:]
        labels = read_labels(self.label_path(sample), (width, height))
        plan = plan_labelled_crop(width, height, self.config, rng)
        pixels = cut_crop(image, plan, self.config.crop_size)
        cut = cut_labels(labels, plan, self.config.crop_size)
        wrong = cut[(cut > self.num_classes) & (cut != IGNORE_INDEX)]
        if len(wrong):
            raise DataError(
                f"{self.label_path(sample)}: value {int(wrong[0])} is no class; allowed are "
                f"0..{self.num_classes} and {IGNORE_INDEX}"
            )
        return pixels, torch.tensor(plan.box), cut


def plan_labelled_crop(
    width: int, height: int, config: DeepLabConfig, rng: np.random.Generator
) -> CropPlan:
    """Draw a crop of an image scaled by a factor of `scale_jitter`, flipped half of the time.

    The factor is one of `num_scales` evenly spaced ones, each as likely; without that number it is
    uniform, in steps of one pixel of the scaled long side. The image is resized bilinearly
    (DeepLabv2).
    """
    factors = config.scale_jitter
    if config.num_scales is not None:
        factor = float(rng.choice(np.linspace(*factors, config.num_scales)))
        factors = (factor, factor)
    low, high = (max(1, round(factor * max(width, height))) for factor in factors)
    train = TrainConfig(
        crop_size=config.crop_size, min_long_side=low, max_long_side=high, resize="bilinear"
    )
    return plan_crop(width, height, train, rng)


def read_labels(path: Path, size: tuple[int, int]) -> Tensor:
    """Decode a label map of `size` (width, height): uint8 [H, W]. Raises DataError."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            labels = torch.from_numpy(np.array(image))
    except BROKEN_IMAGE as error:
        raise DataError(f"{path}: cannot be read as an image ({error}); write it anew") from None
    if image.mode not in ("P", "L"):
        raise DataError(f"{path}: mode {image.mode}; label maps are palette or 8-bit grey PNGs")
    if image.size != size:
        raise DataError(
            f"{path}: {image.width} x {image.height} pixels, its image has {size[0]} x {size[1]}; "
            "write label maps at the images' size"
        )
    return labels
