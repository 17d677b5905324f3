"""CAMs of a network on a data set, and what they score, without a store."""

from typing import NamedTuple

import torch

from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.evaluation.counting import collected, count_each
from wsss.evaluation.score import Score, score_counts
from wsss.labels.infer import ImageCams, infer_cams
from wsss.networks.cam_net import CamNet


class Scored(NamedTuple):
    score: Score
    cams: list[ImageCams]


def scored(model: CamNet, dataset: VocDataset, config: RunConfig) -> Scored:
    """Infer CAMs of the split `train`, and score them against its masks."""
    samples, cpu = dataset.samples("train"), torch.device("cpu")
    cams = list(infer_cams(model, samples, config.labels, device=cpu))
    counts = collected(count_each(cams, dataset, config.labels), dataset, config.labels)
    return Scored(score_counts(counts, config.labels), cams)
