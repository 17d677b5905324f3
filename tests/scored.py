"""CAMs of a network on a data set, and what they score, without a store."""

from typing import NamedTuple

import torch

from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import collect, count_image, threshold_grid
from wsss.evaluation.score import Score, score_counts
from wsss.labels.infer import ImageCams, infer_cams
from wsss.networks.cam_net import CamNet


class Scored(NamedTuple):
    score: Score
    cams: list[ImageCams]


def scored(model: CamNet, dataset: VocDataset, config: RunConfig) -> Scored:
    """Infer CAMs of the split `train`, and score them against its masks."""
    thresholds, num_labels = threshold_grid(config.labels.background_score), 21
    samples, cpu = dataset.samples("train"), torch.device("cpu")
    cams = list(infer_cams(model, samples, config.labels, device=cpu))
    counted = [
        (
            sample.image_id,
            *count_image(
                maps, sample.labels, dataset.mask(sample.image_id), thresholds, num_labels
            ),
        )
        for sample, maps in cams
    ]
    return Scored(score_counts(collect(counted, thresholds, num_labels), config.labels), cams)
