"""Real pictures of PASCAL VOC 2012 and real weights; skipped where they are not at hand."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from PIL import Image

from wsss.config import RunConfig
from wsss.data.check import check_data
from wsss.data.voc import Sample, VocDataset
from wsss.labels.infer import infer_cams
from wsss.networks.cam_net import CamNet
from wsss.overrides import apply_overrides
from wsss.presets import SHORT
from wsss.training.cam import build_cam_net, train_cam
from wsss.weights import file_digest

pytestmark = pytest.mark.shared

EASY = ("aeroplane", "bird", "bus", "cat", "sheep", "train")
"""Classes with enough pictures of their own to learn from in seconds."""


@pytest.fixture(scope="module")
def dataset(shared_voc: Path) -> VocDataset:
    return VocDataset(shared_voc)


def test_all_pictures_pass_the_check_and_sbd_labels_come_from_masks(dataset: VocDataset) -> None:
    report = check_data(dataset, ["train_aug", "trainval"], scored=["trainval"])
    report.raise_if_broken()
    assert report.num_images == {"train_aug": 411, "trainval": 632}
    assert report.labels_from_mask == {"train_aug": 100, "trainval": 0}
    names = Counter[str]()
    for image_id in dataset.image_ids("trainval"):
        text = (dataset.root / "Annotations" / f"{image_id}.xml").read_text()
        # The first name within an object is the object's; parts (head, hand) come after it.
        names.update(set(re.findall(r"<object>\s*<name>(\w+)</name>", text)))
    expected = [names[name] for name in dataset.classes]
    assert report.images_per_class["trainval"] == expected


def pictures_of_one_class(dataset: VocDataset) -> list[Sample]:
    samples = dataset.samples("train")
    chosen = []
    for name in EASY:
        own = [s for s in samples if s.labels == (dataset.classes.index(name),)]
        chosen += own[:8]
    assert len(chosen) >= 44
    return chosen


def pseudo_label_miou(dataset: VocDataset, model: CamNet, config: RunConfig) -> float:
    """mIoU in percent of every second picture's labels at the fixed score, counted by numpy."""
    matrix = np.zeros((21, 21), np.int64)
    samples = pictures_of_one_class(dataset)[::2]
    for image in infer_cams(model, samples, config.labels, device=torch.device("cpu")):
        (label,) = image.sample.labels
        with Image.open(dataset.mask_path(image.sample.image_id)) as mask:
            truth = np.array(mask).astype(np.int64)
        valid = truth != 255
        found = np.where(image.cams[0] > 0.15, label + 1, 0)
        matrix += np.bincount(truth[valid] * 21 + found[valid], minlength=441).reshape(21, 21)
    return 100 * reference.miou(matrix)


def test_a_short_training_beats_an_untrained_head_and_plain_background(
    dataset: VocDataset, shared_weights: Path
) -> None:
    config = apply_overrides(
        SHORT,
        {
            "network.weights": file_digest(shared_weights),
            "network.frozen_stages": 4,
            "train.crop_size": 112,
            "train.min_long_side": 112,
            "train.max_long_side": 168,
            "train.epochs": 4,
            "train.batch_size": 4,
            "train.lr": 0.05,
            "train.momentum": "legacy",
            "train.head_lr_multiplier": 10.0,
            "train.warmup_iterations": 0,
            "train.clip_norm": None,
            "labels.scales": (0.5,),
            "labels.flip": False,
        },
    )
    samples = pictures_of_one_class(dataset)
    model = build_cam_net(config, samples, 20, weights_file=shared_weights)
    untrained = pseudo_label_miou(dataset, model, config)
    records = list(train_cam(model, config, samples))
    trained = pseudo_label_miou(dataset, model, config)
    with torch.no_grad():
        model.classifier.weight.zero_()
    background = pseudo_label_miou(dataset, model, config)  # no activation: all background
    assert records[-1].means["prior_gap"] > 0.5
    assert background < 15
    assert trained > untrained + 5
    assert trained > background + 15
