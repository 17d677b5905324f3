"""The reader of the VOC layout: what it reads; test_data_faults.py has what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from made_up.voc_tree import annotation, save_mask, voc_tree

from wsss.data.classes import read_class_list
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Image `a` of 6 x 4 pixels: cat (8) and person (15) with XML; the split `train` holds it."""
    values = np.zeros((4, 6))
    values[1, 1:3], values[2, 3], values[0, 0] = 8, 15, 255
    names = {"a": ["person", "cat", "person"]}
    return voc_tree(tmp_path, {"a": values}, {"train": "a"}, names=names)


def test_ids_of_a_split_come_in_the_order_of_its_file(root: Path) -> None:
    lists = root / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("2007_000033\r\n2007_000032\n\n2008.x-1_b  \n")
    dataset = VocDataset(root)
    assert dataset.image_ids("val") == ["2007_000033", "2007_000032", "2008.x-1_b"]
    assert dataset.split_names() == ["train", "val"]


def test_labels_come_from_the_xml_once_each_and_in_class_order(root: Path) -> None:
    sample = VocDataset(root).sample("a")
    assert sample.labels == (7, 14)  # cat and person: the 8th and the 15th class, from 0
    assert sample.image_path == root / "JPEGImages/a.jpg"
    (root / "Annotations/a.xml").write_text(annotation("dog"))
    assert VocDataset(root).sample("a").labels == (11,)  # whatever the mask holds


def test_without_xml_labels_come_from_the_mask(root: Path) -> None:
    (root / "Annotations/a.xml").unlink()
    assert VocDataset(root).sample("a").labels == (7, 14)


def test_the_original_mask_is_preferred_to_the_augmented_one(root: Path) -> None:
    save_mask(root / "SegmentationClassAug/a.png", np.full((4, 6), 3))
    dataset = VocDataset(root)
    assert dataset.mask_path("a") == root / "SegmentationClass/a.png"
    (root / "SegmentationClass/a.png").unlink()
    assert dataset.mask_path("a") == root / "SegmentationClassAug/a.png"
    assert set(np.unique(dataset.mask("a"))) == {3}


def test_a_custom_class_list_renames_and_bounds_the_labels(root: Path) -> None:
    assert len(VocDataset(root).classes) == 20  # VOC's, without a list
    (root / "classes.txt").write_text("crack\r\n\n  rust spot \nweld_3\n", encoding="utf-8")
    (root / "Annotations/a.xml").write_text(annotation("weld_3", "rust spot"))
    dataset = VocDataset(root)
    assert dataset.classes == ("crack", "rust spot", "weld_3")
    assert dataset.sample("a").labels == (1, 2)
    with pytest.raises(DataError, match=r"a\.png: value 8 is no class.*0\.\.3 and 255"):
        dataset.mask("a")


def test_a_class_list_of_254_names_fills_the_mask_values(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(f"c{i}" for i in range(254)))
    assert len(read_class_list(tmp_path)) == 254


# Other tools' spellings


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".png"])
def test_a_picture_is_found_in_any_spelling_of_its_ending(root: Path, ending: str) -> None:
    (root / "JPEGImages/._a.jpg").write_bytes(b"of macOS")
    (root / "SegmentationClass/a.png").rename(root / "SegmentationClass/a.PNG")
    (root / "Annotations/a.xml").unlink()
    (root / "Annotations/a.XML").write_text(annotation("dog"))  # which the mask does not show
    (root / "ImageSets/Segmentation/._train.txt").write_bytes(b"\0\5")
    picture = root / f"JPEGImages/a{ending}"
    (root / "JPEGImages/a.jpg").rename(picture)
    dataset = VocDataset(root)
    assert dataset.split_names() == ["train"]
    assert dataset.sample("a") == ("a", picture, (11,))
    assert dataset.image_size("a") == (6, 4)
    assert dataset.mask("a").max() == 255


@pytest.mark.parametrize(
    "line",
    [
        "a.jpg",
        "a.JPG",
        "JPEGImages/a.jpg",
        "/JPEGImages/a.jpg /SegmentationClass/a.png",
        "/x/VOC2012/JPEGImages/a.jpg  /x/SegmentationClassAug/a.png",
    ],
)
def test_a_line_may_name_the_picture_and_its_mask(root: Path, line: str) -> None:
    path = root / "ImageSets/Segmentation/train.txt"
    path.write_text(f"\ufeff{line}\r\n2007.png_b\r\n", encoding="utf-8")
    assert VocDataset(root).image_ids("train") == ["a", "2007.png_b"]


def test_line_breaks_within_a_name_a_byte_order_mark_and_how_accents_are_stored_mean_nothing(
    root: Path,
) -> None:
    names = "\ufeffcup\r\nrust spot\r\ncafe\u0301\r\n\u0915\u0941\u0924\u094d\u0924\u093e\r\n"
    (root / "classes.txt").write_text(names, encoding="utf-8")  # the last one is Hindi
    text = annotation("\n  rust\n  spot\n", "cup ", "caf\u00e9").replace("><", ">\r\n<")
    (root / "Annotations/a.xml").write_text(f"\ufeff{text}", encoding="utf-8")
    assert VocDataset(root).sample("a").labels == (0, 1, 2)


def test_senseless_coordinates_change_no_label(root: Path) -> None:
    box = f"<bndbox><xmin>-{'9' * 4000}</xmin><ymax>1e999</ymax></bndbox>"
    xml = f"<a><size><width>{'9' * 99}</width></size><object><name>cat</name>{box}</object></a>"
    (root / "Annotations/a.xml").write_text(xml)
    assert VocDataset(root).sample("a").labels == (7,)
