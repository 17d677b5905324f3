"""Pictures of VOC's size for the benchmarks, drawn by code. Imports no torch."""

from pathlib import Path

from PIL import Image

from wsss.data.drawn.folder import draw_voc
from wsss.data.voc import VocDataset

VOC_SIZE = (500, 375)
"""Width and height of a typical picture of VOC."""


def voc_sized(root: Path, num_train: int, *, num_extra: int = 1) -> VocDataset:
    """Draw a data set in VOC's layout; enlarge its pictures and masks.

    Split `train` has `num_train` pictures, `train_aug` also the extra ones.
    """
    draw_voc(root, num_train=num_train, num_extra=num_extra, num_val=1)
    for path in root.glob("JPEGImages/*.jpg"):
        with Image.open(path) as picture:
            picture.resize(VOC_SIZE, Image.Resampling.BICUBIC).save(path, quality=95)
    for path in root.glob("SegmentationClass*/*.png"):
        with Image.open(path) as mask:
            mask.resize(VOC_SIZE, Image.Resampling.NEAREST).save(path)
    return VocDataset(root)
