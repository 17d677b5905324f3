"""mIoU of a folder of label maps against the data set's masks, one image in memory at a time.

Legend: L labels (background and K classes), H W image size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.basics.printable import counted
from wsss.data.classes import IGNORE_INDEX
from wsss.data.errors import DataError
from wsss.data.pictures.mask import MAKE_AGAIN, read_mask, require_size
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import Counts, iou_per_label, mean_iou


@dataclass(frozen=True)
class SegmentationScore:
    """Figures in percent, as papers print them, over all pixels of all images together."""

    miou: float
    """Mean over the labels that occur in masks or predictions."""
    iou: dict[str, float | None]
    """By label, background first; None for a label that does not occur."""
    pixel_accuracy: float
    num_images: int


def read_prediction(path: Path, num_classes: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a label map of an image's `size` (width, height), made here: [H, W] in 0..K.

    Raises DataError as `read_mask` and `require_size`, and for 255.
    """
    labels = read_mask(path, num_classes, remedy=MAKE_AGAIN)
    require_size(path, labels, size)
    if labels.max() > num_classes:
        raise DataError(
            f"{path}: value {IGNORE_INDEX} is no label; predictions are 0..{num_classes}; predict "
            "a label for every pixel"
        )
    return labels


def score_folder(
    folder: Path,
    dataset: VocDataset,
    image_ids: Iterable[str],
    note: Callable[[Counts], None] = lambda confusion: None,
) -> SegmentationScore:
    """Score `folder`/<id>.png of the given images; pixels whose mask is 255 do not count.

    note: is told each image's counts, [L, L], in the order of the images. Raises DataError for a
    prediction that is missing, of another size than its mask, or holds a value that is no label
    (255 included), and if no pixel is left to score.
    """
    num_labels = len(dataset.classes) + 1
    total: Counts = np.zeros((num_labels, num_labels), dtype=np.int64)
    num_images = 0
    for image_id in image_ids:
        path, mask = folder / f"{image_id}.png", dataset.mask(image_id)
        prediction = read_prediction(path, num_labels - 1, mask.shape[::-1])
        confusion = confusion_matrix(prediction, mask, num_labels)
        note(confusion)
        total += confusion
        num_images += 1
    if total.sum() == 0:
        raise DataError(
            f"{folder}: no pixel to score in {counted(num_images, 'image')}; give another split"
        )
    ious = 100 * iou_per_label(total)
    return SegmentationScore(
        miou=100 * float(mean_iou(total)),
        iou={
            name: None if np.isnan(value) else float(value)
            for name, value in zip(("background", *dataset.classes), ious, strict=True)
        },
        pixel_accuracy=100 * float(np.trace(total) / total.sum()),
        num_images=num_images,
    )


def confusion_matrix(
    prediction: NDArray[np.uint8], mask: NDArray[np.uint8], num_labels: int
) -> Counts:
    """Count pixels by mask (rows) and prediction (columns): [H, W] twice -> [L, L]."""
    valid = mask != IGNORE_INDEX
    codes = mask[valid].astype(np.int64) * num_labels + prediction[valid]
    return np.bincount(codes, minlength=num_labels**2).reshape(num_labels, num_labels)
