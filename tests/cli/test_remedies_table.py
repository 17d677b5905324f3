"""Each fault of data or settings says what to do, and what it says works to the letter."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sweeps.tables.own import parse_grid
from wsss.config import RunConfig
from wsss.data.check import check_data
from wsss.data.classes import ClassListError
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset
from wsss.overrides import ConfigError, apply_overrides, parse_assignments
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig

LIST, PICTURE = "ImageSets/Segmentation/train.txt", "JPEGImages/b.jpg"
XML, MASK, CLASSES = "Annotations/b.xml", "SegmentationClass/b.png", "classes.txt"
ANNOTATION = "<annotation><object><name>{}</name></object></annotation>"
BLANK = np.ones((4, 6), np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, a and b, of one class, cup."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (6, 4)).save(tmp_path / f"JPEGImages/{name}.jpg")
        save_mask(tmp_path / f"SegmentationClass/{name}.png")
        (tmp_path / f"Annotations/{name}.xml").write_text(ANNOTATION.format("cup"))
    (tmp_path / LIST).write_text("a\nb\n")
    (tmp_path / CLASSES).write_text("cup\n")
    return tmp_path


def problem_of(root: Path) -> str:
    """Return the one problem that the data set has, or ""."""
    try:
        report = check_data(VocDataset(root), ["train"], scored=["train"])
    except ClassListError as error:
        return str(error)
    assert len(report.problems) < 2
    return "".join(report.problems)


def save_mask(path: Path, values: Any = BLANK, *, kind: str = "PNG") -> None:
    Image.fromarray(values).save(path, format=kind)


def write(rel: str, content: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda root: (root / rel).write_text(content, encoding=encoding)


def masked(values: Any, *, kind: str = "PNG") -> Callable[[Path], object]:
    return lambda root: save_mask(root / MASK, values, kind=kind)


def renamed(rel: str, name: str) -> Callable[[Path], object]:
    return lambda root: (root / rel).rename((root / rel).with_name(name))


def moved(rel: str, to: str) -> Callable[[Path], object]:
    def move(root: Path) -> None:
        (root / to).parent.mkdir(exist_ok=True)
        (root / rel).rename(root / to)

    return move


def removed(rel: str) -> Callable[[Path], object]:
    return lambda root: (root / rel).unlink()


def copied(rel: str, name: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(root / rel, (root / rel).with_name(name))


@pytest.mark.parametrize(
    ("broken", "told", "mended"),
    [
        (write(CLASSES, "_background_\ncup\n"), "remove the line", write(CLASSES, "cup\n")),
        (write(CLASSES, "unlabeled\ncup\n"), "remove the line", write(CLASSES, "cup\n")),
        (write(CLASSES, "cup\ncup\n"), "keep each name once", write(CLASSES, "cup\n")),
        (write(CLASSES, "1 cup\n"), "write the names alone", write(CLASSES, "cup\n")),
        (write(CLASSES, ""), "write 1 to 254 names, one per line", write(CLASSES, "cup\n")),
        (
            renamed(CLASSES, "Classes.names"),
            "there is Classes.names; write its names there",
            write(CLASSES, "cup\n"),
        ),
        (write(LIST, "a 1 0\nb 0 1\n"), "keep the id alone, one per line", write(LIST, "a\nb\n")),
        (write(LIST, "a\nb\nb.jpg\n"), "keep it once", write(LIST, "a\nb\n")),
        (write(LIST, "\n"), "write one image id per line", write(LIST, "a\nb\n")),
        (write(LIST, "a\n/x/b.jpg\n"), "JPEGImages/<id>.jpg", write(LIST, "a\nJPEGImages/b.jpg")),
        (write(LIST, "a\nb\n", "utf-16"), "save it as UTF-8", write(LIST, "a\nb\n")),
        (renamed(LIST, "all.txt"), "there are: all; write this one", write(LIST, "a\nb\n")),
        (
            moved(LIST, "ImageSets/Main/train.txt"),
            "there is ImageSets/Main/train.txt",
            moved("ImageSets/Main/train.txt", LIST),
        ),
        (
            moved("SegmentationClass", "SegmentationClassPNG"),
            "there is SegmentationClassPNG/a.png",
            moved("SegmentationClassPNG", "SegmentationClass"),
        ),
        (write(LIST, "a\nB\n"), "missing (no file, but b.jpg)", write(LIST, "a\nb\n")),
        (removed(PICTURE), "remove the image from its splits", write(LIST, "a\n")),
        (copied(PICTURE, "b.PNG"), "keep one of them", removed("JPEGImages/b.PNG")),
        (write(PICTURE, "<html>"), "replace the file", copied("JPEGImages/a.jpg", "b.jpg")),
        (write(XML, ANNOTATION.format("Cup")), "correct it", write(XML, ANNOTATION.format("cup"))),
        (
            write(XML, ANNOTATION.format("Background")),
            "remove the object",
            write(XML, ANNOTATION.format("cup")),
        ),
        (
            write(XML, f'<?xml version="1.0" encoding="gb2312"?>{ANNOTATION.format("cup")}'),
            "save it as UTF-8",
            write(XML, f'<?xml version="1.0" encoding="utf-8"?>{ANNOTATION.format("cup")}'),
        ),
        (write(XML, "<annotation/>"), "needs at least one", write(XML, ANNOTATION.format("cup"))),
        (write(XML, "<annotation>"), "replace it", write(XML, ANNOTATION.format("cup"))),
        (removed(MASK), "add one as PNG", masked(BLANK)),
        (renamed(MASK, "b.jpg"), "no file, but b.jpg", renamed("SegmentationClass/b.jpg", "b.png")),
        (masked(BLANK * 2), "allowed are 0..1 and 255", masked(BLANK)),
        (masked(BLANK * 255), "write class numbers, where cup is 1", masked(BLANK)),
        (masked(BLANK.T), "turn the mask", masked(BLANK)),
        (masked(BLANK[:2]), "save it at its image's size", masked(BLANK)),
        (masked(BLANK, kind="JPEG"), "not PNG); replace the file", masked(BLANK)),
        (
            masked(np.dstack([BLANK] * 3)),
            "save class numbers as a palette or 8-bit grey PNG",
            masked(BLANK),
        ),
    ],
)
def test_a_data_set_is_whole_once_it_is_mended_as_told(
    root: Path, broken: Callable[[Path], object], told: str, mended: Callable[[Path], object]
) -> None:
    assert problem_of(root) == ""
    broken(root)
    assert told in problem_of(root)
    mended(root)
    assert problem_of(root) == ""


def test_the_masks_of_the_supervised_bound_are_found_once_they_lie_as_told(root: Path) -> None:
    dataset, mask = VocDataset(root), root / MASK
    assert len(dataset.mask_paths(["a", "b"])) == 2
    mask.rename(root / "away.png")
    with pytest.raises(DataError, match=r"1 of 2 images have no mask, first .*; add .*/b\.png"):
        dataset.mask_paths(["a", "b"])
    (root / "away.png").rename(mask)
    assert mask in dataset.mask_paths(["a", "b"])


@pytest.mark.parametrize("settings", [RunConfig(), PseudoLabelConfig(), DeepLabConfig()])
def test_the_default_that_a_wrong_value_is_told_can_be_given(settings: Any) -> None:
    for key in settings.flat():
        with pytest.raises(ConfigError) as caught:
            apply_overrides(settings, {key: {"no": "value"}})
        (value,) = set(re.findall("; the default is (.*)", str(caught.value)))
        asked = parse_assignments([f"{key}={value}"])
        assert apply_overrides(settings, asked).flat()[key] == settings.flat()[key]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.lrr=0.1", r"did you mean (?P<key>[\w.]+)\?"),
        ("Train.LR=0.1", r"did you mean (?P<key>[\w.]+)\?"),
        ("train.lr", r"write it as (?P<word>\S+)"),
        ("train=1", r"known: (?P<key>[\w.]+)"),
        ("network.weights=no", r"give (?P<value>\w+) "),
        ("network.backbone=ResNet50", r"must be '(?P<value>\w+)'"),
        ("network.pixel_correlation=false", r"must be '(?P<value>\w+)'"),
    ],
)
def test_a_setting_is_taken_once_it_is_given_as_told(word: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides(RunConfig(), parse_assignments([word]))
    found = re.search(told, str(caught.value))
    assert found
    key, _, value = word.partition("=")
    parts = {"key": key, "value": value} | found.groupdict()
    better = parts.get("word", f"{parts['key']}={parts['value']}")
    apply_overrides(RunConfig(), parse_assignments([better]))


def test_a_grid_is_taken_once_it_is_given_as_told() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_grid(["train.lr"])
    (better,) = re.findall(r"write it as (\S+)", str(caught.value))
    assert parse_grid([better]) == {"transfer.lambda_s": [0.1, 0.5]}
