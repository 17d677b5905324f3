"""`wsss data import`: COCO's JSON, tables and class folders become a data set in VOC layout."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from click.testing import Result
from commands import wsss
from PIL import Image

from wsss.data.errors import DataError
from wsss.data.importing import into_voc as importing
from wsss.data.importing.foreign import Pictures
from wsss.data.importing.into_voc import image_ids
from wsss.data.voc import VocDataset

WIDTH, HEIGHT = 8, 6
PICTURES = ("1.jpg", "2.png", "3.JPG", "a/x.jpg", "b/x.jpg", "a/y \u00e4.jpg")
LABELS = {"1": ("cat", "dog"), "2": ("dog",), "3": ("cat",)}
SHORT_FORM = "=33000`0N"
"""What pycocotools 2.0.11 makes of rows 1..3 of columns 2..4, and of the last pixel."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, name in enumerate(PICTURES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if name.endswith("png") else "JPEG"
        Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 99, 9)).save(folder / name, kind)
    return folder


def run(source: Path, *more: str | Path) -> Result:
    return wsss("data", "import", source, source.parent / "made", *more)


def given(pictures: Path, text: str | bytes, *more: str, name: str) -> Result:
    source = pictures.with_name(name)
    source.write_bytes(text if isinstance(text, bytes) else text.encode())
    return run(source, "--images", pictures, *more)


def imported(pictures: Path, text: str, *more: str, name: str = "labels.csv") -> VocDataset:
    result = given(pictures, text, *more, name=name)
    assert result.exit_code == 0, result.output
    return VocDataset(pictures.with_name("made"))


def refused(pictures: Path, text: str | bytes, *more: str, name: str = "labels.csv") -> str:
    result = given(pictures, text, *more, name=name)
    assert result.exit_code == 2, f"{result.exception!r}\n{result.output}"
    assert sorted(path.name for path in pictures.parent.iterdir() if path.is_dir()) == ["pictures"]
    return next(line for line in result.stderr.splitlines() if line.startswith("error: "))


def labels(dataset: VocDataset) -> dict[str, tuple[str, ...]]:
    splits = (split for split in ("train", "val") if split in dataset.split_names())
    samples = [sample for split in splits for sample in dataset.samples(split)]
    return {s.image_id: tuple(dataset.classes[k] for k in s.labels) for s in samples}


# Tables and folders


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("image,labels\n1.jpg,cat;dog\n2.png,dog\n3.JPG,cat\n", ()),
        ("\ufeff\r\nfile_name;classes\r\n1.jpg;cat,dog\r\n2.png;dog\r\n3.JPG;cat\r\n", ()),
        ("\rimage,labels\r1.jpg,;;cat;dog\r2.png,dog\r3.JPG,;;cat\r", ()),
        ("image,labels\n1.jpg,cat dog\n2.png,dog\n3.JPG,cat\n", ("--separator", "space")),
        ('image,labels\n1.jpg,"[\'cat\', \'dog\']"\n2.png,[\'dog\']\n3.JPG,"[""cat""]"\n', ()),
        ("id,class,x\n1,cat,7\n  \n1,dog,8\n2,dog,9\npictures/3,cat,1\n", ()),
        ("filename, cat, dog\n1.jpg,1,1\n2.png,0,1.0\n3.JPG,True,\n", ()),
        (
            "name,x,y\nu,1.jpg,cat;dog\nu,2.png,dog\nu,3.JPG,cat\n",
            ("--image-column", "x", "--label-column", "y"),
        ),
    ],
)
def test_a_table_is_read_in_each_of_its_forms(
    pictures: Path, text: str, more: tuple[str, ...]
) -> None:
    dataset = imported(pictures, text, *more)
    assert dataset.classes == ("cat", "dog")
    assert labels(dataset) == LABELS
    assert dataset.image_ids("train_aug") == dataset.image_ids("train")
    assert len(dataset.image_ids("val")) == 1  # a fifth of three, but one at least
    assert dataset.image_path("3").read_bytes() == (pictures / "3.JPG").read_bytes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,labels\n1.jpg,traffic light\n", "'traffic light': one label or several?"),
        ('image,labels\n1.jpg,"a,b"\n2.png,a;b\n', "one label or several?"),
        ("image,labels\n1.jpg,cat,dog\n", "the row '1.jpg,cat,dog' has 3 fields, the header 2"),
        ("image,path,labels\n1.jpg,1.jpg,cat\n", "image or path? choose one with --image-column"),
        ("1.jpg,cat\n2.png,dog\n", "no column of pictures among 1.jpg, cat"),
        ("image,width\n1.jpg,20\n", "no column of labels; name one with --label-column, or"),
        ("image,the animal\n1.jpg,cat\n", "(the animal of '1.jpg' is 'cat')"),
        ("image,cat,dog\n1.jpg,1,0\n2.png,0,2\n", "(dog of '2.png' is '2')"),
        ("image\n1.jpg\n", "(there is no other column)"),
        ("image,a,a\n1.jpg,0,1\n", "two columns of image, a, a have one name"),
        ("image,labels\n9.jpg,cat\n2.png,dog\n", "1 of 2 pictures not found in"),
        ("image,labels\nx.jpg,cat\n", "'x.jpg' may be a/x.jpg, b/x.jpg"),
        ("image,labels\n1.jpg,cup\n2.png,Cup\n", "'Cup' and 'cup' differ at most in upper"),
        ("image,labels\n1.jpg,background\n", "'background' is no class"),
        ("image,labels\n1.jpg,\n", "no image has a label"),
        ("image,labels,split\n1.jpg,cat,spring\n", "'1.jpg' is in split 'spring'; write"),
        ("image,labels,split\n1.jpg,a,val\n1.jpg,b,train\n", "is in split 'train'; write train"),
        ("image,labels,split\n1.jpg,cat,val\n", "no labelled image in train"),
        ("image,labels\n1.jpg,K\u00e4se\n".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_a_table_that_is_unclear_is_refused(
    pictures: Path, text: str | bytes, expected: str
) -> None:
    assert expected in refused(pictures, text)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("1.jpg", "1.jpg"),
        ("./a/x.jpg", "a/x.jpg"),
        ("C:\\\\mine\\a\\x", "a/x.jpg"),
        ("x.jpg", "x.jpg"),  # rather than a/x.jpg
        ("y.jpg", "b/y.jpg"),
        ("b\\y.JPG", "b/y.jpg"),
        ("y.tif", "b/y.jpg"),
        ("a/y.jpg", None),
        ("a", None),
        ("", None),
    ],
)
def test_a_picture_is_found_by_its_path_or_a_unique_end(
    tmp_path: Path, named: str, expected: str | None
) -> None:
    for name in ("1.jpg", "1.png", "a/x.jpg", "x.jpg", "b/y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = Pictures(tmp_path)
    assert found.find(named, Path("labels.csv")) == expected
    with pytest.raises(DataError, match=r"'1' may be 1\.jpg, 1\.png"):
        found.find("1", Path("labels.csv"))


def test_the_splits_of_a_table_are_kept(pictures: Path) -> None:
    text = "image,labels,split\n1.jpg,cat,Train\n2.png,dog,validation\n3.JPG,dog,test\n"
    dataset = imported(pictures, text)
    found = [dataset.image_ids(split) for split in ("train", "train_aug", "val", "test")]
    assert found == [["1"], ["1"], ["2"], ["3"]]


def test_a_second_table_may_lie_below_the_first_and_what_it_names_is_not_left_out(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "labels.csv").write_text("image,labels\n1.jpg,cat\n2.png,dog\n")
    (pictures / "a/val.csv").write_text("image,labels\nx.jpg,dog\n")
    monkeypatch.chdir(pictures)
    told = run(Path("labels.csv"), "--val", pictures / "a/val.csv").stdout
    assert "labels.csv does not label, or that are not read: 3.JPG, a/y \u00e4.jpg, b/x" in told
    assert labels(VocDataset(pictures / "made"))["x"] == ("dog",)


def test_a_folder_is_a_class_and_what_lies_beside_is_left_out(pictures: Path) -> None:
    (pictures / "a").rename(pictures.parent / "elsewhere")
    (pictures / "a").symlink_to("../elsewhere")
    (pictures / "b/back").symlink_to("..")
    (pictures / "1.jpg").rename(pictures / os.fsdecode(b"b/\xe9t\xe9.jpg"))  # in Latin-1
    for told in ("imported", "already there"):
        result = run(pictures, "--val", "0")
        assert told in result.stdout, result.output
    assert "does not label, or that are not read: 2.png, 3.JPG" in result.stdout
    dataset = VocDataset(pictures.with_name("made"))
    assert labels(dataset) == {"a_x": ("a",), "b_x": ("b",), "t": ("b",), "y_a": ("a",)}
    record = json.loads((dataset.root / "imported.json").read_text())
    assert record["pictures"]["t"] == r"b/\xe9t\xe9.jpg"


def test_folders_of_splits_are_told_from_a_class_named_train(pictures: Path) -> None:
    (pictures / "cafe\u0301").mkdir()  # as macOS writes an accent
    (pictures / "2.png").rename(pictures / "cafe\u0301/2.png")
    (pictures / "train").symlink_to("a")  # a class of VOC's
    assert run(pictures).exit_code == 0
    made = pictures.with_name("made")
    assert VocDataset(made).classes == ("a", "b", "caf\u00e9", "train")
    shutil.rmtree(made)
    (pictures / "test").symlink_to("b")
    told = run(pictures).stderr
    assert "a, b, cafe\u0301 beside the splits test, train; move it elsewhere" in told


def test_ids_are_made_of_names_then_of_folders_then_of_digests() -> None:
    ids = image_ids(["a.jpg", "a.png", "\u732b.jpg", "x/a b.jpg", "y/a b.jpg", ".b.jpg"])
    assert [ids[name] for name in ("x/a b.jpg", "y/a b.jpg", ".b.jpg")] == ["x_a_b", "y_a_b", "b"]
    assert len(set(ids.values())) == 6
    assert all(re.fullmatch(r"a-[0-9a-f]{12}", ids[name]) for name in ("a.jpg", "a.png"))


# COCO


def coco(*annotations: dict[str, Any], **changes: Any) -> str:
    images = [
        {"id": 10 + k, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for k, name in enumerate(PICTURES[:2])
    ]
    categories = [
        {"id": 0, "name": "_background_"},
        {"id": 90, "name": "dog"},
        {"id": 7, "name": "cat"},
    ]
    tree = {"images": images, "categories": categories, "annotations": annotations}
    return json.dumps(tree | changes)


def annotated(image: int, category: int, segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": segmentation, **more}


def box(image: int, category: int, left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    return annotated(image, category, [[left, top, right, top, right, bottom, left, bottom]])


DOG, CAT = box(10, 90, 0, 0, 6, 4), box(11, 7, 1, 1, 3, 3)


def test_a_mask_has_small_objects_above_large_ones_and_crowds_below(pictures: Path) -> None:
    small = annotated(10, 7, {"size": [HEIGHT, WIDTH], "counts": SHORT_FORM})
    runs = [0, 6, 40, 2]  # the first column, and the last two pixels of the last one
    crowd = annotated(10, 7, {"size": [HEIGHT, WIDTH], "counts": runs}, iscrowd=1)
    text = coco(small, DOG, crowd, CAT)
    dataset = imported(pictures, text, "--masks", "--val", "0", name="instances.json")
    assert dataset.classes == ("dog", "cat")
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[:, 0] = 255
    expected[4:, 7] = 255
    expected[:4, :6] = 1
    expected[1:4, 2:5] = 2
    expected[5, 7] = 2
    np.testing.assert_array_equal(dataset.mask("1"), expected)
    assert dataset.mask("2").sum() == 2 * 4
    with Image.open(dataset.mask_path("1")) as image:
        assert (image.getpalette() or [])[3:6] == [128, 0, 0]
    assert labels(dataset) == {"1": ("dog", "cat"), "2": ("cat",)}


def test_coco_s_json_of_via_is_read(pictures: Path) -> None:
    """Ids are numbers here and text there, sizes 0, and an only polygon is not in a list."""
    dog = DOG | {"image_id": "10", "category_id": 90.0, "segmentation": DOG["segmentation"][0]}
    images = [{"id": 10, "file_name": "1.jpg", "width": 0, "height": 0}]
    text = coco(dog, images=images)
    dataset = imported(pictures, text, "--masks", "--val", "0", name="instances.json")
    assert dataset.mask("1").sum() == 6 * 4


def test_a_class_that_the_mask_does_not_show_is_no_label(pictures: Path) -> None:
    crowd = box(11, 90, 4, 0, 8, 6) | {"iscrowd": 1}
    source = pictures.with_name("instances.json")
    source.write_text(coco(DOG, CAT, crowd, box(11, 90, 50, 50, 60, 60)))
    result = run(source, "--images", pictures, "--masks")
    assert "note: dog: 1 image lost this label" in result.stdout
    assert "no problem found" in result.stdout
    assert "sweeps plan V --data" in result.stdout.splitlines()[-1]
    assert labels(VocDataset(pictures.with_name("made")))["2"] == ("cat",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", "not COCO's instances (must be names with their values"),
        ('{"shapes": []}', "not COCO's instances (images: Field required)"),
        ("[" * 100_000, "not COCO's instances"),
        (coco(DOG, images=[]), "annotations[0] has an image_id or category_id, 10, that is not"),
        (
            coco(DOG, categories=[]),
            "annotations[0] has an image_id or category_id, 90, that is not",
        ),
        (
            coco(DOG, categories=[{"id": 90, "name": "dog"}, {"id": 90, "name": "cat"}]),
            "2 categories have the id 90; give each its own",
        ),
        (coco(box(10, 0, 0, 0, 6, 4)), "'_background_' is no class"),
        (coco(DOG | {"segmentation": []}), "the segmentation of 'dog' is neither polygons nor"),
        (coco(DOG | {"segmentation": [1, 2, "x"]}), "is neither polygons nor run lengths of 8x6"),
        (
            coco(DOG | {"iscrowd": 1}),
            "no mask in train shows an object: they are crowds (iscrowd 1)",
        ),
        (coco(box(10, 90, 0, 0, 1, 1)), "no coordinate is above 1, as if in shares of"),
        (coco(DOG | {"segmentation": {"size": [6, 8], "counts": [3]}}), "(3 pixels of [6, 8])"),
        (
            coco(DOG, images=[{"id": 10, "file_name": "1.jpg", "width": HEIGHT, "height": WIDTH}]),
            "8x6 pixels upright, instances.json says 6x8",
        ),
    ],
)
def test_coco_s_json_that_cannot_be_used_is_refused(
    pictures: Path, text: str, expected: str
) -> None:
    assert expected in refused(pictures, text, "--masks", name="instances.json")


def test_a_second_source_is_val(pictures: Path) -> None:
    for folder, category in (("a", "dog"), ("b", "cat")):
        tree = {
            "images": [{"id": 1, "file_name": "x.jpg"}],
            "annotations": [{"image_id": 1, "category_id": "c"}],
            "categories": [{"id": "c", "name": category}],
        }
        (pictures / folder / "labels.json").write_text(json.dumps(tree))
    result = run(pictures / "a/labels.json", "--val", pictures / "b/labels.json")
    assert result.exit_code == 0, result.output
    dataset = VocDataset(pictures / "a/made")
    assert labels(dataset) == {"a_x": ("dog",), "b_x": ("cat",)}
    assert dataset.image_ids("val") == ["b_x"]


# The folder


def test_an_import_is_whole_or_absent_and_done_once(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, made = pictures.with_name("labels.csv"), pictures.with_name("made")
    source.write_text("image,labels\n1.jpg,cat\n2.png,dog\n3.JPG,dog\n")
    with monkeypatch.context() as patch:
        patch.setattr(importing, "write_json", Mock(side_effect=KeyboardInterrupt))
        assert run(source, "--images", pictures).exit_code != 0
    assert [path for path in pictures.parent.iterdir() if path.is_dir()] == [pictures]

    synced: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: synced.append(made.exists()))
    first = run(source, "--images", pictures)
    assert f"{made}: imported (train 2, train_aug 2, val 1)" in first.stdout
    assert synced == [False], "before it has its name: also after a power cut, all or nothing"
    assert "no problem found" in first.stdout
    assert "without a network, add --weights none, or --weights FILE" in first.stdout
    words = shlex.split(first.stdout.splitlines()[-1])
    assert words[0] == "next:"
    expected = f"train-cam --run runs/made --data {made} --preset short --set train.batch_size=2"
    assert words[words.index("train-cam") :] == expected.split(" ")
    before = (made / "imported.json").stat().st_mtime_ns
    assert f"{made}: already there" in run(source, "--images", pictures).stdout
    assert (made / "imported.json").stat().st_mtime_ns == before
    other = run(source, "--images", pictures, "--val", "0")
    assert (other.exit_code, "another import" in other.stderr) == (2, True)
    (made / "imported.json").unlink()
    assert "holds other files; name a folder" in run(source, "--images", pictures).stderr


def test_broken_pictures_are_named_together_and_nothing_is_left(pictures: Path) -> None:
    for name in ("1.jpg", "2.png"):
        (pictures / name).write_bytes(b"no picture")
    text = "image,labels\n1.jpg,cat\n2.png,dog\n3.JPG,dog\n"
    told = given(pictures, text, name="labels.csv").stderr
    assert [name in told for name in ("1.jpg: cannot be", "2.png: cannot be")] == [True, True]
    assert not pictures.with_name("made").exists()


def test_pictures_without_class_folders_are_refused_with_what_to_do(pictures: Path) -> None:
    for name in ("x.xml", "t.csv"):
        (pictures / "a" / name).touch()
    told = run(pictures / "a").stderr
    assert "no folder of a class; make one per class" in told
    assert "(there is t.csv, x.xml); VOC's XML needs no import: put it into Annotations" in told
