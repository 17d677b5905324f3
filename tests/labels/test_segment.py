"""Whole-image inference against a loop, label PNGs, and scores against torchmetrics."""

from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from PIL import Image
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.pictures.image import read_image
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.segmentation_score import score_folder
from wsss.labels.segment import (
    crf_refined,
    label_colours,
    segment_image,
    strongest_label,
    write_segmentation,
)
from wsss.networks.deeplab import DeepLab, build_deeplab
from wsss.segmentation_config import DeepLabConfig

CPU = torch.device("cpu")
BASE = DeepLabConfig(backbone="resnet10_narrow", weights="none", rates=(1, 2), test_scales=(1.0,))


@pytest.fixture(scope="module")
def model() -> DeepLab:
    model = build_deeplab(BASE, 4)
    with torch.no_grad():  # a fresh head is nearly indifferent: make it say something
        for parameter in model.classifiers.parameters():
            parameter.mul_(200)
    return model.eval()


def probs_by_loop(
    model: DeepLab, image: Image.Image, scales: tuple[float, ...], flip: bool
) -> np.ndarray:
    """Mean over scales and flips of the softmax of upsampled logits, one forward at a time."""
    parts = []
    for scale in scales:
        size = (round(image.width * scale), round(image.height * scale))
        scaled = np.array(image.resize(size, Image.Resampling.BILINEAR))
        for flipped in (False, True)[: 1 + flip]:
            pixels = scaled[:, ::-1] if flipped else scaled
            x = ((pixels / 255 - reference.MEAN) / reference.STD).transpose(2, 0, 1).copy()
            with torch.no_grad():
                logits = model(torch.from_numpy(x).float()[None])[0].double().numpy()
            logits = np.stack(
                [reference.resize_bilinear(low, image.height, image.width) for low in logits]
            )
            logits = logits[:, :, ::-1] if flipped else logits
            powers = np.exp(logits - logits.max(0))
            parts.append(powers / powers.sum(0))
    return np.mean(parts, axis=0)


def probs_of(model: DeepLab, sample: Sample, config: DeepLabConfig) -> np.ndarray:
    return segment_image(model.eval(), read_image(sample.image_path), config, device=CPU)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
def test_probabilities_equal_the_loop(
    model: DeepLab, smooth: list[Sample], scales: tuple[float, ...], flip: bool
) -> None:
    config = BASE.model_copy(update={"test_scales": scales, "test_flip": flip})
    for sample in smooth:
        probs = probs_of(model, sample, config)
        with Image.open(sample.image_path) as image:
            expected = probs_by_loop(model, image, scales, flip)
        assert probs.dtype == np.float32
        assert probs.shape == expected.shape
        np.testing.assert_allclose(probs, expected, atol=2e-3)
        np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)
        assert probs.std() > 0.02  # not indifferent: the comparison sees something


def test_the_crf_moves_a_ragged_border_to_the_edge_of_the_picture() -> None:
    pytest.importorskip("pydensecrf")
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[:, 20:] = 255
    truth = np.zeros((40, 40), dtype=int)
    truth[:, 20:] = 2
    ragged = truth.copy()
    ragged[::2, 17:20], ragged[1::2, 20:23] = 2, 0
    probs = np.full((4, 40, 40), 0.05, dtype=np.float32)
    np.put_along_axis(probs, ragged[None], 0.85, axis=0)
    refined = crf_refined(image, probs)
    assert refined.shape == probs.shape
    assert (strongest_label(probs) != truth).sum() == 120
    assert (strongest_label(refined) != truth).sum() < 12
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-4)
    assert not refined[[1, 3]].any()  # strongest nowhere: takes no part


def test_the_crf_runs_where_the_settings_ask_for_it(model: DeepLab, smooth: list[Sample]) -> None:
    pytest.importorskip("pydensecrf")
    plain, refined = (
        probs_of(model, smooth[0], BASE.model_copy(update={"test_crf": on})) for on in (False, True)
    )
    assert refined.shape == plain.shape
    assert np.abs(refined - plain).max() > 0.1


def test_a_network_of_broken_weights_is_refused_with_the_remedy(smooth: list[Sample]) -> None:
    broken = build_deeplab(BASE, 4)
    torch.nn.init.constant_(next(broken.classifiers.parameters()), torch.nan)
    with pytest.raises(DataError, match=r"weights are broken; .*lower lr \(now 0\.00025\)"):
        probs_of(broken, smooth[0], BASE)


# Label PNGs


def test_a_label_map_is_written_as_a_palette_png_with_vocs_colours(tmp_path: Path) -> None:
    label = np.array([[0, 1, 15, 20, 255]], dtype=np.uint8)
    write_label_png(tmp_path / "deep" / "a.png", label)
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (5, 1))
        np.testing.assert_array_equal(np.array(image), label)
        colours = np.array(image.convert("RGB"))
    # The published colours of background, aeroplane, person, tvmonitor and the ignored border.
    published = [[(0, 0, 0), (128, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)]]
    np.testing.assert_array_equal(colours, published)
    np.testing.assert_array_equal(label_colours(label), published)


def test_the_strongest_label_is_written_for_every_image(
    model: DeepLab, smooth: list[Sample], tmp_path: Path
) -> None:
    paths = list(write_segmentation(model, smooth, BASE, tmp_path, device=CPU))
    assert [path.name for path in paths] == ["0.png", "1.png"]
    for path, sample in zip(paths, smooth, strict=True):
        with Image.open(path) as written:
            expected = probs_of(model, sample, BASE).argmax(0)
            np.testing.assert_array_equal(np.array(written), expected)


# Scores


@pytest.fixture
def predictions(drawn: Path, tmp_path: Path) -> Path:
    """Masks with a third of the pixels wrong, of every split of the drawn tree."""
    dataset, rng = VocDataset(drawn), np.random.default_rng(0)
    for image_id in dataset.image_ids("train"):
        mask = dataset.mask(image_id)
        wrong = rng.choice([0, 3, 7, 11], mask.shape).astype(np.uint8)
        found = np.where((rng.random(mask.shape) < 0.3) | (mask == 255), wrong, mask)
        write_label_png(tmp_path / f"{image_id}.png", found)
    return tmp_path


def test_the_score_is_that_of_torchmetrics_on_the_written_pngs(
    drawn: Path, predictions: Path
) -> None:
    dataset = VocDataset(drawn)
    ids = dataset.image_ids("train")
    score = score_folder(predictions, dataset, ids)
    mean = MulticlassJaccardIndex(21, ignore_index=255)
    each = MulticlassJaccardIndex(21, ignore_index=255, average="none")
    accuracy = MulticlassAccuracy(21, ignore_index=255, average="micro")
    for image_id in ids:
        with Image.open(predictions / f"{image_id}.png") as image:
            found = torch.from_numpy(np.array(image)).long()
        truth = torch.from_numpy(dataset.mask(image_id)).long()
        for metric in (mean, each, accuracy):
            metric.update(found, truth)
    assert score.num_images == 10
    assert score.miou == pytest.approx(100 * float(mean.compute()), abs=1e-3)
    assert score.pixel_accuracy == pytest.approx(100 * float(accuracy.compute()), abs=1e-3)
    assert tuple(score.iou) == ("background", *VOC_CLASSES)
    for value, expected in zip(score.iou.values(), each.compute().tolist(), strict=True):
        assert (value or 0.0) == pytest.approx(100 * expected, abs=1e-3)
    assert score.iou["tvmonitor"] is None  # drawn nowhere, predicted nowhere
    assert score.iou["diningtable"] == 0  # drawn nowhere, but predicted
    assert 20 < score.miou < 80


def test_unfit_predictions_are_refused_by_name(drawn: Path, predictions: Path) -> None:
    dataset = VocDataset(drawn)
    ids = dataset.image_ids("train")
    path = predictions / f"{ids[0]}.png"
    unlabelled = np.zeros(dataset.mask(ids[0]).shape, np.uint8)
    unlabelled[-1, -1] = 255
    for label, message in (
        (np.zeros((2, 3), np.uint8), "3x2 pixels, its image has"),
        (unlabelled, r"value 255 is no label; predictions are 0\.\.20"),
    ):
        write_label_png(path, label)
        with pytest.raises(DataError, match=rf"{ids[0]}\.png: {message}"):
            score_folder(predictions, dataset, ids)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"delete it and give the same command again$"):
        score_folder(predictions, dataset, ids)
    path.unlink()
    with pytest.raises(DataError, match=rf"{ids[0]}\.png: missing; add the file"):
        score_folder(predictions, dataset, ids)
    with pytest.raises(DataError, match="no pixel to score in 0 images"):
        score_folder(predictions, dataset, [])
