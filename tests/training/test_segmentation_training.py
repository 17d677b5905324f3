"""The segmentation trainer: aligned crops, loss, learning and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from PIL import Image

from wsss.config import ViewsConfig
from wsss.data.errors import DataError
from wsss.data.loading.batches import CropBatch, LabelledCrops, plan_labelled_crop
from wsss.data.loading.crops import CropPlan
from wsss.data.pictures.image import image_size
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.segmentation_score import score_folder
from wsss.gpu_check.trainings import made_up_batch
from wsss.labels.segment import write_segmentation
from wsss.method.views import network_inputs
from wsss.networks.backbone import nearest_labels
from wsss.networks.deeplab import DeepLab, build_deeplab
from wsss.presets import PAPER_DEEPLAB, TINY_DEEPLAB
from wsss.segmentation_config import DeepLabConfig
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.loop import EpochSummary, Step
from wsss.training.segmentation import (
    NotTrainedError,
    SegmentationStep,
    build_optimizer,
    load_trained,
    segmentation_training,
)

K = 20
CPU = torch.device("cpu")
SMALL = TINY_DEEPLAB.model_copy(
    update={"crop_size": 48, "batch_size": 4, "iterations": 10, "scale_jitter": (0.4, 0.7)}
)
FROZEN = SMALL.model_copy(update={"batch_norm": "frozen", "lr": 0.01, "iterations": 5})
"""Batch statistics are per rank in any data-parallel training; frozen ones give equality."""


def in_folder(folder: Path, samples: list[Sample]) -> list[Path]:
    return [folder / f"{sample.image_id}.png" for sample in samples]


@pytest.fixture(scope="module")
def labels(drawn: Path, samples: list[Sample]) -> list[Path]:
    return in_folder(drawn / "SegmentationClassAug", samples)


def train(
    config: DeepLabConfig, samples: list[Sample], labels: list[Path], **options: Any
) -> tuple[DeepLab, list[EpochSummary]]:
    model = build_deeplab(config, K)
    training = segmentation_training(model, config, samples, labels, **options)
    return model, list(training.epochs())


def weights(model: DeepLab) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# Crops


def test_image_and_label_map_are_cut_alike(tmp_path: Path) -> None:
    # The image shows its own label: grey 8 k where the label is k, in blocks larger than a blur.
    blocks = np.random.default_rng(0).integers(1, 20, (4, 5), dtype=np.uint8)
    truth = blocks.repeat(25, 0).repeat(21, 1)  # [100, 105]
    Image.fromarray(np.stack([truth * 8] * 3, 2)).save(tmp_path / "a.bmp")
    write_label_png(tmp_path / "a.png", truth)
    config = SMALL.model_copy(update={"crop_size": 64, "scale_jitter": (0.5, 1.5)})
    sample = Sample("a", tmp_path / "a.bmp", (0,))
    crops = LabelledCrops([sample], [tmp_path / "a.png"], K, config)
    for epoch in range(20):
        pixels, (top, left, bottom, right), cut = crops[epoch, 0]
        inside = torch.zeros(64, 64, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(cut == 255, ~inside)
        assert not pixels[:, ~inside].any()
        agreeing = (pixels[0].float() / 8 - cut)[inside].abs() < 0.01
        assert agreeing.float().mean() > 0.75  # all but the blurred edges of blocks
    config = config.model_copy(update={"rng_seed": 1})
    other = LabelledCrops([sample], [tmp_path / "a.png"], K, config)
    assert not torch.equal(other[0, 0][0], crops[0, 0][0])


def planned(**settings: Any) -> list[CropPlan]:
    """Many crops of a picture of 400 x 300 pixels which hold it whole."""
    config, rng = PAPER_DEEPLAB.model_copy(update=settings), np.random.default_rng(0)
    config = config.model_copy(update={"crop_size": 1000})
    plans = [plan_labelled_crop(400, 300, config, rng) for _ in range(2000)]
    assert 900 < sum(plan.flip for plan in plans) < 1100
    return plans


def test_the_scale_is_uniform_over_the_jitter() -> None:
    plans = planned(scale_jitter=(0.5, 1.5), num_scales=None)
    scales = np.array([(p.box[3] - p.box[1]) / 400 for p in plans])
    heights = np.array([(p.box[2] - p.box[0]) / 300 for p in plans])
    assert (scales.min(), scales.max()) == pytest.approx((0.5, 1.5), abs=0.005)
    counts = np.histogram(scales, 10, (0.5, 1.5))[0]
    assert counts.min() > 150  # of 200 expected, standard deviation 13
    np.testing.assert_allclose(heights, scales, atol=0.005)


def test_a_number_of_scales_draws_one_of_so_many_factors_each_as_often() -> None:
    widths, counts = np.unique([p.box[3] - p.box[1] for p in planned()], return_counts=True)
    assert widths.tolist() == [200, 300, 400, 500, 600]  # .5, .75, 1, 1.25, 1.5
    assert counts.min() > 320  # of 400 expected, standard deviation 18
    rng = np.random.default_rng(0)
    panorama = [plan_labelled_crop(20_000, 400, PAPER_DEEPLAB, rng).size for _ in range(20)]
    assert max(panorama) == (600, 30_000)


def test_unfit_label_maps_are_refused_by_name(
    samples: list[Sample], labels: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"\.png: missing, 16 of 16 label maps in all; write"):
        LabelledCrops(samples, in_folder(tmp_path, samples), K, SMALL)
    path = tmp_path / f"{samples[0].image_id}.png"
    size = image_size(samples[0].image_path)
    for image, message in (
        (Image.new("P", (9, 9)), r"9x9 pixels, its image has"),
        (Image.new("L", size, 21), r"value 21 is no class; allowed are 0\.\.20 and 255"),
    ):
        image.save(path)
        with pytest.raises(DataError, match=rf"{samples[0].image_id}\.png: {message}"):
            LabelledCrops(samples, [path, *labels[1:]], K, SMALL)[0, 0]


# Loss


@pytest.mark.parametrize("size", [(321, 41), (321, 21), (193, 13), (97, 7), (513, 65), (3, 3)])
def test_labels_on_the_feature_map_are_those_of_pillows_nearest_neighbour(
    size: tuple[int, int],
) -> None:
    # The reference resizes float images by Pillow. Every pixel is its own number here.
    fine, coarse = size
    numbers = torch.arange(fine * fine).reshape(1, fine, fine).float()
    image = Image.fromarray(numbers[0].numpy())
    expected = np.array(image.resize((coarse, coarse), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(nearest_labels(numbers, (coarse, coarse))[0], expected)


def labelled(label: int) -> CropBatch:
    """Two pictures that are one object all over."""
    batch = made_up_batch(2, 32, label_maps=True)
    return batch._replace(targets=torch.full_like(batch.targets, label))


def make_step(config: DeepLabConfig) -> tuple[DeepLab, Step]:
    model = build_deeplab(config, K).train()
    return model, SegmentationStep(model, config)


def test_the_loss_at_the_feature_map_is_that_of_a_loop_over_its_places() -> None:
    model, step = make_step(FROZEN.model_copy(update={"loss_size": "feature_map"}))
    batch = made_up_batch(3, 32, label_maps=True)
    with torch.no_grad():
        logits = model(network_inputs(batch.pixels, batch.boxes, ViewsConfig())[0])
    assert logits.shape == (3, K + 1, 2, 2)
    loss, accuracy, norm = step(batch).tolist()
    expected = reference.label_loss(logits.numpy(), batch.targets.numpy())
    assert (loss, accuracy) == pytest.approx(expected, rel=1e-4)
    assert norm > 0
    _, whole = make_step(FROZEN)  # at the crop's size other pixels count
    assert whole(batch)[0].item() != pytest.approx(loss, rel=1e-5)


def test_a_batch_without_any_label_changes_nothing_but_by_decay() -> None:
    model, step = make_step(FROZEN.model_copy(update={"weight_decay": 0.0}))
    before = weights(model)
    loss, accuracy, norm = step(labelled(255)).tolist()
    assert (loss, accuracy, norm) == (0, 0, 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_gradients_are_clipped_to_the_configured_norm(clip_norm: float | None) -> None:
    model, step = make_step(FROZEN.model_copy(update={"clip_norm": clip_norm}))
    before = float(step(labelled(1))[-1])
    assert before > 1
    after = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(after) == pytest.approx(clip_norm or before, rel=1e-4)


@pytest.mark.parametrize("bias_decay", [0.0, 5e-4])
def test_the_papers_rates_and_decays_are_the_references(bias_decay: float) -> None:
    own = {"backbone": "resnet10_narrow", "weights": "none", "head_bias_decay": bias_decay > 0}
    model = build_deeplab(config := PAPER_DEEPLAB.model_copy(update=own), K)
    groups = build_optimizer(model, config).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([2.5e-4, 2.5e-3, 5e-3])
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4, bias_decay]
    assert {g["momentum"] for g in groups} == {0.9}
    found = [{id(p) for p in group["params"]} for group in groups]
    head = model.classifiers
    assert found[1:] == [{id(c.weight) for c in head}, {id(c.bias) for c in head}]
    assert set.union(*found) == {id(p) for p in model.parameters() if p.requires_grad}


# The loop


def test_a_record_holds_what_the_epoch_came_to(samples: list[Sample], labels: list[Path]) -> None:
    _, records = train(SMALL.model_copy(update={"lr_step": 3}), samples, labels)
    assert [record.epoch for record in records] == [1, 2, 3]
    assert [record.iteration for record in records] == [4, 8, 10]  # iterations end it, not epochs
    assert [len(record.step_losses) for record in records] == [4, 4, 2]
    for record in records:
        steps = record.step_losses
        assert record.means["loss"] == pytest.approx(sum(steps) / len(steps), abs=1e-5)
        changed_at = (record.iteration - 1) // 3 * 3
        assert record.lr == pytest.approx(SMALL.lr * (1 - changed_at / 10) ** 0.9)
        assert record.images_per_second == pytest.approx(4 * len(steps) / record.seconds)
        assert set(record.metrics()) == {
            *("epoch", "iteration", "loss", "pixel_accuracy", "grad_norm", "lr"),
            *("images_per_second", "seconds"),
        }


def test_a_trained_network_is_loaded_to_the_same_bits_and_trained_no_further(
    samples: list[Sample], labels: list[Path], tmp_path: Path
) -> None:
    straight, _ = train(SMALL, samples, labels, checkpoints=CheckpointFolder(tmp_path))
    again, nothing = train(SMALL, samples, labels, checkpoints=CheckpointFolder(tmp_path))
    assert nothing == []
    loaded = load_trained(CheckpointFolder(tmp_path), SMALL, K)
    assert not loaded.training
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_a_network_that_is_not_trained_to_its_end_is_refused(tmp_path: Path) -> None:
    folder, model = CheckpointFolder(tmp_path), build_deeplab(SMALL, K)
    with pytest.raises(NotTrainedError, match=rf"{tmp_path}: 0 of 10 iterations can be read; tra"):
        load_trained(folder, SMALL, K)
    for position in (Position(2, 8), Position(3, 10)):
        last = folder.save(position, model, build_optimizer(model, SMALL))
    assert load_trained(folder, SMALL, K)
    last.write_bytes(b"broken")
    with pytest.raises(NotTrainedError, match=r"8 of 10 iterations can be read; train the rest"):
        load_trained(folder, SMALL, K)


def test_a_few_drawn_images_are_learnt_by_heart(drawn: Path, tmp_path: Path) -> None:
    dataset = VocDataset(drawn)
    samples = dataset.samples("train_aug")[:4]
    halved = {"crop_size": 64, "scale_jitter": (0.5, 0.5), "test_scales": (0.5,)}
    config = TINY_DEEPLAB.model_copy(
        update={"iterations": 60, "batch_size": 4, "output_stride": 8, **halved}
    )
    model, records = train(config, samples, in_folder(drawn / "SegmentationClassAug", samples))
    assert records[-1].means["loss"] < 0.5 * records[0].means["loss"]
    written = list(write_segmentation(model, samples, config, tmp_path, device=CPU))
    assert score_folder(tmp_path, dataset, [path.stem for path in written]).miou > 60
