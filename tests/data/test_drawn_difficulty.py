"""The drawn data set is as hard as meant: learnable, and under-covered by a plain CAM."""

import numpy as np
import pytest
from scored import Scored, scored

from wsss.data.drawn.folder import draw_voc
from wsss.data.drawn.pictures import draw_picture
from wsss.data.voc import VocDataset
from wsss.presets import TINY
from wsss.training.cam import build_cam_net, train_cam


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> VocDataset:
    return VocDataset(draw_voc(tmp_path_factory.mktemp("data") / "drawn", num_val=1))


@pytest.fixture(scope="module")
def untrained(dataset: VocDataset) -> Scored:
    return scored(build_cam_net(TINY, dataset.samples("train_aug"), 20), dataset, TINY)


@pytest.fixture(scope="module")
def trained(dataset: VocDataset) -> Scored:
    """The plain CAM: no module, no view."""
    samples = dataset.samples("train_aug")
    model = build_cam_net(TINY, samples, 20)
    records = list(train_cam(model, TINY, samples))
    assert records[-1].collapsed == 0
    return scored(model, dataset, TINY)


def test_a_plain_cam_is_clearly_above_an_untrained_one_and_above_all_background(
    trained: Scored, untrained: Scored, dataset: VocDataset
) -> None:
    masks = [dataset.mask(sample.sample.image_id) for sample in trained.cams]
    valid = sum(int((mask != 255).sum()) for mask in masks)
    background = sum(int((mask == 0).sum()) for mask in masks)
    labels = len({int(v) for mask in masks for v in np.unique(mask)} - {255})
    all_background = 100 * background / valid / labels
    assert trained.score.miou_best > untrained.score.miou_best + 10
    assert trained.score.miou_fixed > untrained.score.miou_fixed + 10
    assert trained.score.miou_best > all_background + 15


def test_a_plain_cam_covers_the_telling_part_and_leaves_out_much_of_the_body(
    trained: Scored, dataset: VocDataset
) -> None:
    """At the threshold of the best mIoU, on the objects' own parts and bodies."""
    covered = {"part": [0, 0], "body": [0, 0]}
    for cams in trained.cams:
        drawing = draw_picture(rng_seed=0, image_index=int(cams.sample.image_id[-6:]))
        for drawn in drawing.objects:
            index = cams.sample.labels.index(dataset.classes.index(drawn.name))
            found = cams.cams[index] > trained.score.best_threshold
            for name, region in (("part", drawn.part), ("body", drawn.body)):
                covered[name][0] += int((found & region).sum())
                covered[name][1] += int(region.sum())
    recall = {name: hit / total for name, (hit, total) in covered.items()}
    assert recall["part"] > recall["body"] + 0.1, recall
    assert recall["body"] < 0.9, recall
