"""Prediction of one's own pictures, and the gallery."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from commands import wsss
from PIL import Image

from wsss.data.errors import DataError
from wsss.evaluation.figures import GalleryRow, draw_segmentation_gallery
from wsss.labels.predict import Prediction, predict_images
from wsss.networks.deeplab import DeepLab, build_deeplab
from wsss.segmentation_config import DeepLabConfig
from wsss.training.checkpoint import CheckpointFolder, Position

CONFIG = DeepLabConfig(
    backbone="resnet10_narrow", weights="none", rates=(1,), test_scales=(1.0,), test_flip=False
)
CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def model() -> DeepLab:
    """A network that says dog wherever red prevails, and background elsewhere."""
    model = build_deeplab(CONFIG, len(CLASSES))
    model.backbone = RedOrNot()  # type: ignore[assignment]
    (head,) = model.classifiers
    with torch.no_grad():
        head.weight.zero_()  # type: ignore[operator]
        head.bias.copy_(torch.tensor([0.0, -9.0, 0.0]))  # type: ignore[operator, arg-type]
        head.weight[2, 0, 1, 1] = 1.0  # type: ignore[index]
    return model.eval()


class RedOrNot(torch.nn.Module):
    """[B, 3, H, W] -> [B, 128, H, W]: red minus green in channel 0."""

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.pad(x[:, :1] - x[:, 1:2], (0, 0, 0, 0, 0, 127))]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Green left, red on the right quarter: 40 x 24 and, larger, 120 x 60 pixels."""
    paths = []
    for name, width, height in (("small.png", 40, 24), ("large.bmp", 120, 60)):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[:, :, 1] = 200
        pixels[:, width * 3 // 4 :] = (200, 0, 0)
        paths.append(tmp_path / name)
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_each_picture_gets_a_mask_and_an_overlay_of_its_size(
    model: DeepLab, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.labels.predict.MAX_LONG_SIDE", 60)
    out = tmp_path / "out"
    found = list(predict_images(model, pictures, out, CONFIG, CLASSES))
    assert [prediction.picture for prediction in found] == pictures
    names = ("large.png", "large_overlay.png", "small.png", "small_overlay.png")
    assert sorted(path.name for path in out.iterdir()) == [*names]
    for prediction, (width, height) in zip(found, [(40, 24), (120, 60)], strict=True):
        assert isinstance(prediction, Prediction)
        expected = np.zeros((height, width), dtype=np.uint8)
        expected[:, width * 3 // 4 :] = 2
        with Image.open(prediction.mask) as mask, Image.open(prediction.overlay) as overlay:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.array(mask), expected)
            tinted = np.array(overlay)
        assert tinted.shape == (height, width, 3)
        assert tinted[0, 0].tolist() == [0, 200, 0]  # background as it was
        assert tinted[0, -1].tolist() == [100, 64, 0]  # (200, 0, 0) and VOC's (0, 128, 0), halved
        assert prediction.shares == {"background": 0.75, "dog": 0.25}


def test_pictures_that_cannot_be_predicted_are_named_before_anything_is_written(
    model: DeepLab, pictures: list[Path], tmp_path: Path
) -> None:
    twin = tmp_path / "twin" / "small.bmp"
    twin.parent.mkdir()
    twin.write_bytes(pictures[1].read_bytes())
    out = tmp_path / "out"
    for paths, folder, message in (
        ([*pictures, twin], out, r"small\.png would replace another"),
        (pictures, tmp_path, r"small\.png would replace another"),
    ):
        with pytest.raises(DataError, match=message):
            list(predict_images(model, paths, folder, CONFIG, CLASSES))
    assert not out.exists()


def test_bad_pictures_are_named_and_the_others_are_segmented(
    pictures: list[Path], tmp_path: Path
) -> None:
    network = tmp_path / "network"
    save_network(network, CLASSES)
    words, absent, out = tmp_path / "words.jpg", tmp_path / "absent.jpg", tmp_path / "out"
    words.write_bytes(b"words")
    (loop := tmp_path / "loop.jpg").symlink_to(loop)
    result = predict(network, out, absent, tmp_path, loop, words, *pictures)
    assert result.exit_code == 1, result.output
    named = [line.split(": ")[1] for line in result.stderr.splitlines()]
    assert named == [str(absent), str(tmp_path), str(loop), str(words)]
    assert result.stderr.count("no file that can be read; give the path of a picture\n") == 3
    assert re.search(r"words\.jpg: cannot be decoded .*; replace the file", result.stderr)
    assert len([*out.glob("*_overlay.png")]) == len(pictures)
    assert predict(network, out, *pictures).exit_code == 0


def test_a_network_beside_other_settings_is_refused_and_kept(
    pictures: list[Path], tmp_path: Path
) -> None:
    for name, classes, fault in (
        ("fewer", ("cat",), "classifiers.0.bias is (3,), and (2,)"),
        ("twice", ("cat", "cat"), "'cat' and 'cat' differ at most in"),
        ("swapped", CLASSES, "of another training (segmentations/a, not segmentations/b)"),
    ):
        save_network(tmp_path / name, classes, "b" if name == "swapped" else "a")
        result = predict(tmp_path / name, tmp_path / "out", *pictures)
        assert result.exit_code == 2
        assert fault in result.stderr
        assert (tmp_path / name / "checkpoints" / "epoch_0001.pt").exists()


def save_network(folder: Path, classes: tuple[str, ...], owner: str = "a") -> None:
    fresh = build_deeplab(CONFIG, len(CLASSES))
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    checkpoints = CheckpointFolder(folder / "checkpoints", owner="segmentations/a")
    checkpoints.save(Position(1, CONFIG.iterations), fresh, optimizer)
    settings = {
        "stage": f"segmentations/{owner}",
        "segmentation": CONFIG.model_dump(mode="json"),
        "classes": classes,
    }
    (folder / "config.json").write_text(json.dumps(settings))


def predict(network: Path, out: Path, *pictures: Path) -> Result:
    return wsss("predict", "--network", network, "--out", out, *pictures)


def test_a_gallery_shows_the_labels_in_vocs_colours(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    row = GalleryRow("x", image, (np.zeros((40, 60), np.uint8), np.full((40, 60), 15, np.uint8)))
    draw_segmentation_gallery(tmp_path / "a.png", [row], ("ground truth", "prediction"))
    with Image.open(tmp_path / "a.png") as drawing:
        pixels = np.array(drawing.convert("RGB"))
    person = (pixels == (192, 128, 128)).all(2)
    assert person.sum() > 5000
    assert np.nonzero(person)[1].min() > 2 * pixels.shape[1] // 3 - 10  # the last of three columns
