"""Splits against each other, against the folders and against VOC 2012's own lists."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from sweeps.cli.method.data import page
from wsss.basics.printable import command
from wsss.data import check_splits
from wsss.data.check import check_data
from wsss.data.check_splits import (
    OFFICIAL_SPLITS,
    OfficialSplit,
    SplitReport,
    is_official,
    split_report,
)
from wsss.data.voc import VocDataset

A, B, C = "2007_000001", "2007_000002", "2007_000003"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of 4 x 2: `train` a, `train_aug` a and b, `val` c; b has SBD's mask only."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (tmp_path / folder).mkdir()
    for name in (A, B, C):
        Image.new("RGB", (4, 2)).save(tmp_path / f"JPEGImages/{name}.jpg")
    save_mask(tmp_path / f"SegmentationClass/{A}.png", [[0, 1, 1, 255], [0, 0, 20, 255]])
    save_mask(tmp_path / f"SegmentationClassAug/{B}.png", [[1, 1, 1, 1], [0, 0, 0, 0]])
    save_mask(tmp_path / f"SegmentationClass/{C}.png", [[3, 3, 0, 0], [0, 0, 0, 0]])
    for split, names in {"train": [A], "train_aug": [A, B], "val": [C]}.items():
        write_split(tmp_path, split, names)
    return tmp_path


def save_mask(path: Path, rows: list[list[int]]) -> None:
    Image.fromarray(np.array(rows, np.uint8)).save(path)


def write_split(root: Path, split: str, names: list[str]) -> None:
    path = root / f"ImageSets/Segmentation/{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def report_of(root: Path, official: Mapping[str, OfficialSplit] = OFFICIAL_SPLITS) -> SplitReport:
    dataset = VocDataset(root)
    with mock.patch.object(check_splits, "OFFICIAL_SPLITS", official):
        return split_report(dataset, dataset.split_names())


def test_images_and_pixels_are_counted_per_class_and_split(root: Path) -> None:
    counts = report_of(root).counts
    train, aug = counts["train"], counts["train_aug"]
    assert (train.num_images, train.num_masks) == (1, 1)
    assert (train.images[0], train.images[19], sum(train.images)) == (1, 1, 2)
    assert (train.pixels[0], train.pixels[19], sum(train.pixels)) == (2, 1, 3)
    assert (train.background_pixels, train.ignored_pixels) == (3, 2)
    assert (aug.num_images, aug.images[0], aug.images[19]) == (2, 2, 1)
    assert (aug.pixels[0], aug.background_pixels, aug.ignored_pixels) == (6, 7, 2)
    assert counts["val"].pixels[2] == 2


def test_the_page_shows_images_and_shares_of_scored_pixels(root: Path) -> None:
    dataset = VocDataset(root)
    found = check_data(dataset, dataset.split_names(), scored=["train"])
    assert found.problems == []
    lines = [line.split() for line in page(found, report_of(root)).splitlines()]
    assert ["class", "train", "train_aug", "val"] in lines
    assert ["aeroplane", "1", "33.33", "%", "2", "42.86", "%", "0", "0.00", "%"] in lines
    assert ["tvmonitor", "1", "16.67", "%", "1", "7.14", "%", "0", "0.00", "%"] in lines
    assert ["background", "50.00", "%", "50.00", "%", "75.00", "%"] in lines
    assert ["pixels", "ignored", "2", "2", "0"] in lines
    assert ["note:", "train:", "1", "image,", "VOC", "2012", "has", "1,464"] in lines


@pytest.mark.parametrize("split", ["train", "train_aug"])
def test_an_image_both_trained_on_and_scored_is_a_problem(root: Path, split: str) -> None:
    assert report_of(root).problems == []
    write_split(root, split, [A, B, C] if split == "train_aug" else [A, C])
    problems = report_of(root).problems
    assert problems == [f"{split} and val share 1 image ({C}); remove them from one of the two"]


def test_train_and_train_aug_may_share_and_what_is_missing_is_noted(root: Path) -> None:
    write_split(root, "train_aug", [B])
    report = report_of(root)
    assert report.problems == []
    assert f"train has 1 image ({A}) that train_aug lacks" in report.notes


def test_files_that_no_split_uses_and_masks_without_a_picture_are_noted(root: Path) -> None:
    for n in range(4, 9):
        shutil.copy(root / f"JPEGImages/{A}.jpg", root / f"JPEGImages/2007_00000{n}.jpg")
    (root / f"JPEGImages/{B}.jpg").unlink()
    save_mask(root / "SegmentationClass/x.png", [[0]])
    notes = report_of(root).notes
    assert (
        "JPEGImages: 5 images (2007_000004, 2007_000005, 2007_000006 and 2 more) in no split"
    ) in notes
    assert "SegmentationClass: 1 image (x) in no split" in notes
    assert "SegmentationClass: 1 image (x) without a picture" in notes
    assert f"SegmentationClassAug: 1 image ({B}) without a picture" in notes


def test_a_split_without_masks_is_no_problem_and_is_counted(root: Path) -> None:
    Image.new("RGB", (4, 2)).save(root / "JPEGImages/2008_000001.jpg")
    write_split(root, "test", ["2008_000001"])
    report = report_of(root)
    assert report.problems == []
    assert (report.counts["test"].num_images, report.counts["test"].num_masks) == (1, 0)


def test_a_broken_mask_is_left_out_of_the_counts(root: Path) -> None:
    (root / f"SegmentationClass/{A}.png").write_bytes(b"<html>")
    counts = report_of(root).counts["train_aug"]
    assert (counts.num_images, counts.num_masks, counts.pixels[0]) == (2, 1, 4)


def test_a_split_that_cannot_be_read_is_a_problem_beside_the_others(root: Path) -> None:
    write_split(root, "val", [])
    write_split(root, "train", [A, "../evil"])
    problems = report_of(root).problems
    assert len(problems) == 2
    assert "train.txt: '../evil' is a path outside JPEGImages" in problems[0]
    assert "val.txt: the split is empty" in problems[1]


def test_an_altered_list_of_the_official_length_is_a_problem(root: Path) -> None:
    digest = hashlib.sha256(f"{A}\n{B}\n".encode()).hexdigest()  # of the sorted ids
    official = OFFICIAL_SPLITS | {"train_aug": OfficialSplit(2, digest)}
    write_split(root, "train_aug", [B, A])
    report = report_of(root, official)
    assert report.official["train_aug"]
    assert not report.official["train"]
    found = check_data(VocDataset(root), ["train_aug"], scored=[])
    assert "VOC 2012's own list: train_aug" in page(found, report).splitlines()
    write_split(root, "train_aug", [A, "2007_000009"])
    assert report_of(root, official).problems == [
        "train_aug: as many ids as VOC 2012's list (2), but not the same; use the list of "
        f"another copy, such as that of: {command('wsss', 'data', 'prepare', f'{root}-anew')}"
    ]


def test_custom_classes_and_custom_ids_are_not_held_against_the_official_lists(root: Path) -> None:
    official = {"train": OfficialSplit(1, "0" * 64)}
    assert len(report_of(root, official).problems) == 1
    write_split(root, "train", ["crack_01"])
    assert report_of(root, official).problems == []
    write_split(root, "train", [A])
    (root / "classes.txt").write_text("".join(f"class {n}\n" for n in range(20)))
    report = report_of(root, official)
    assert (report.problems, report.official) == ([], {})


def test_an_unknown_split_is_never_official() -> None:
    assert not is_official("trainval", [A])


@pytest.mark.shared
def test_real_pictures_have_no_problem_and_the_known_numbers(shared_voc: Path) -> None:
    report = report_of(shared_voc)
    assert report.problems == []
    assert {split: counts.num_masks for split, counts in report.counts.items()} == {
        "train": 311,
        "train_aug": 411,
        "trainval": 632,
        "val": 321,
    }
    assert report.official == {"train": False, "train_aug": False, "val": False}
    assert not any("no split" in note or "without" in note for note in report.notes)
    expected = np.zeros(256, np.int64)
    ids = (shared_voc / "ImageSets/Segmentation/val.txt").read_text().split()
    for image_id in ids[:20]:
        with Image.open(shared_voc / f"SegmentationClass/{image_id}.png") as mask:
            for count, value in mask.getcolors() or []:  # Pillow's own count
                assert isinstance(value, int)
                expected[value] += count
    (part,) = split_report(_first(shared_voc, ids[:20]), ["val"]).counts.values()
    assert part.pixels == expected[1:21].tolist()
    assert (part.background_pixels, part.ignored_pixels) == (expected[0], expected[255])


def _first(root: Path, ids: list[str]) -> VocDataset:
    """The data set with a shorter `val`."""

    class Shorter(VocDataset):
        def image_ids(self, split: str) -> list[str]:
            return ids

    return Shorter(root)
