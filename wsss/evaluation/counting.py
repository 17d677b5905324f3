"""The pixel counts of a data set's CAMs, at every threshold of the configured grid."""

from collections.abc import Iterable, Iterator

from wsss.config import LabelsConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import (
    CountedImage,
    ThresholdCounts,
    collect,
    count_image,
    threshold_grid,
)
from wsss.labels.infer import ImageCams


def count_each(
    images: Iterable[ImageCams], dataset: VocDataset, labels: LabelsConfig
) -> Iterator[CountedImage]:
    """Count each image's CAMs against its mask, at every threshold.

    Raises DataError for an image without a mask.
    """
    thresholds, num_labels = threshold_grid(labels.background_score), len(dataset.classes) + 1
    for sample, cams in images:
        mask = dataset.mask(sample.image_id)
        counted = count_image(cams, sample.labels, mask, thresholds, num_labels)
        yield sample.image_id, *counted


def collected(
    images: Iterable[CountedImage], dataset: VocDataset, labels: LabelsConfig
) -> ThresholdCounts:
    """Join the counts of images."""
    thresholds = threshold_grid(labels.background_score)
    return collect(list(images), thresholds, len(dataset.classes) + 1)
