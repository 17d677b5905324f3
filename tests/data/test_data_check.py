"""The check of a data set: what it finds, the fingerprint that names its content, its memory."""

import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up.voc_tree import LISTS, encoded, palette_mask, save_mask, voc_tree, write_split
from PIL import Image

from sweeps.cli.method.data import page
from wsss.basics.printable import command
from wsss.data import check as checking
from wsss.data.check import check_data, check_data_once, checks_folder
from wsss.data.check_splits import OFFICIAL_SPLITS, OfficialSplit, compare_lists
from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.report import MAX_PROBLEMS, DataReport
from wsss.data.voc import VocDataset

SPLITS = ["train", "train_aug", "val"]
VOC_NAMES = {"bird": 2, "boat": 3, "car": 6, "cat": 7, "horse": 12, "sheep": 16}  # aeroplane is 0


@pytest.fixture
def copy(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / os.fsdecode(b"voc \xe9")))  # not in UTF-8


def report_of(root: Path, splits: list[str] | None = None) -> DataReport:
    return check_data(VocDataset(root), splits or SPLITS, scored=SPLITS)


def change_mask(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(path) as image:
        values = np.array(image)
    palette_mask(change(values)).save(path)


def test_a_whole_data_set_has_no_problem_and_is_counted(drawn: Path) -> None:
    report = report_of(drawn)
    report.raise_if_broken()
    assert report.num_images == {"train": 10, "train_aug": 16, "val": 3}
    assert report.labels_from_mask == {"train": 0, "train_aug": 6, "val": 0}  # SBD has no XML
    assert re.fullmatch("[0-9a-f]{16}", report.fingerprint)
    expected = Counter[int]()
    for image_id in (drawn / "ImageSets/Segmentation/val.txt").read_text().split():
        text = (drawn / f"Annotations/{image_id}.xml").read_text()
        expected.update({VOC_NAMES[name] for name in re.findall(r"<name>(\w+)</name>", text)})
    assert report.images_per_class["val"] == [expected[k] for k in range(20)]


def one_pixel_less(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        values = np.array(image)
    values[0, 0] = 255 if values[0, 0] == 0 else 0
    return encoded(palette_mask(values), "PNG")


Content = Callable[[bytes], bytes]
FIRST, LAST = "drawn_000000", "drawn_000015"
"""Of train, and of train_aug, where it has no XML."""
CHANGES: dict[str, tuple[str, Content]] = {
    "byte of an image": (f"JPEGImages/{FIRST}.jpg", lambda content: content[:-1] + b"\0"),
    "pixel of a mask": (f"SegmentationClass/{FIRST}.png", one_pixel_less),
    "name of a class": ("classes.txt", lambda text: text.replace(b"aeroplane", b"spaceship")),
    "order of an epoch": (f"{LISTS}/train.txt", lambda text: b"\n".join(reversed(text.split()))),
    "shorter train_aug": (f"{LISTS}/train_aug.txt", lambda text: text[len(FIRST) + 1 :]),
    "more labels": (
        f"Annotations/{LAST}.xml",
        lambda _: b"<a><object><name>bus</name></object></a>",
    ),
    "nothing": (f"SegmentationClass/{FIRST}.png", lambda content: content),
}
"""What changes -> its file and its new content. No drawn image holds an aeroplane, train or bus."""


def changed(root: Path, what: str) -> None:
    """Change a file, whose time of modification stays."""
    rel, content = CHANGES[what]
    path = root / rel
    stat = path.stat() if path.exists() else None
    path.write_bytes(content(path.read_bytes() if stat else b""))
    if stat:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_all_problems_come_in_one_error_each_with_its_file(copy: Path) -> None:
    (copy / "JPEGImages/drawn_000000.jpg").unlink()
    change_mask(copy / "SegmentationClass/drawn_000001.png", lambda values: values[:-1])
    (copy / "Annotations/drawn_000005.xml").write_text("<annotation><object>")
    write_split(copy, "val", [])
    expected = [
        "val.txt: the split is empty",
        "test.txt: no such split",
        "JPEGImages/drawn_000000.jpg: missing",
        "drawn_000001.png: ",
        "drawn_000005.xml: not well-formed XML",
    ]
    report = report_of(copy, [*SPLITS, "test"])
    assert len(report.problems) == len(expected)  # an image of two splits is told once
    assert report.labels_from_mask["train_aug"] == 6  # a broken XML gives none
    for problem, part in zip(report.problems, expected, strict=True):
        assert problem.startswith(str(copy))
        assert part in problem
    write_split(copy, "val", [f"gone_{index:02d}" for index in range(MAX_PROBLEMS + 3)])
    with pytest.raises(DataError) as caught:
        report_of(copy, ["val"]).raise_if_broken()
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_PROBLEMS + 1
    assert "gone_00.jpg: missing" in lines[0]
    see = command("wsss", "data", "check", "--json", "--data", copy)
    assert lines[-1] == f"... and 3 more; see: {see}"


def test_a_mask_is_needed_where_it_is_scored_or_gives_the_labels(copy: Path) -> None:
    for image_id in (ids := VocDataset(copy).image_ids("train")):
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (copy / f"{folder}/{image_id}.png").unlink()
    dataset = VocDataset(copy)
    report = check_data(dataset, SPLITS, scored=["val"])
    assert report.problems == []
    assert report.num_masks == {"train": 0, "train_aug": 6, "val": 3}
    assert any(note.startswith("train: 10 of 10 images have no mask;") for note in report.notes)
    whole, example = report_of(copy).problems
    assert "10 of 19 images to be scored (train, train_aug, val) have no mask" in whole
    assert f"{ids[0]}.png: no mask here" in example
    (copy / "annotations").mkdir()
    (copy / f"Annotations/{ids[0]}.xml").rename(copy / f"annotations/{ids[0]}.xml")
    (problem,) = check_data(dataset, SPLITS, scored=["val"]).problems
    told = f"{ids[0]}.xml: no annotation here (there is annotations/{ids[0]}.xml), and no mask"
    assert told in problem


def test_without_any_mask_a_set_that_is_to_be_scored_has_one_example(copy: Path) -> None:
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        for path in (copy / folder).iterdir():
            path.rename(path.with_suffix(".npy"))  # labelme writes arrays beside its PNGs
    whole, example = check_data(VocDataset(copy), ["train"], scored=["train"]).problems
    assert "10 of 10 images to be scored (train) have no mask" in whole
    assert "drawn_000000.png: no mask here (no file, but drawn_000000.npy)" in example
    assert check_data(VocDataset(copy), ["train"], scored=[]).problems == []


def test_an_image_without_a_class_can_be_scored_but_not_trained_on(copy: Path) -> None:
    (copy / "Annotations/drawn_000000.xml").unlink()
    change_mask(copy / "SegmentationClass/drawn_000000.png", np.zeros_like)
    assert "no class present" in report_of(copy).problems[0]
    dataset = VocDataset(copy)
    for _ in range(2):  # the second report is a remembered one
        report = check_data_once(dataset, ["train"], scored=["train"], may_be_empty=["train"])
        assert report.problems == []
        assert "no class in drawn_000000: a headline scores" in "".join(report.notes)
        with pytest.raises(DataError, match="no class present"):
            check_data_once(dataset, ["train"], scored=["train"]).raise_if_broken()


def test_a_mask_that_contradicts_its_xml_is_a_problem(copy: Path) -> None:
    for number, change in enumerate(
        (lambda v: np.where(v > 0, 255, 0), lambda v: np.where(v % 255, 1, v))
    ):
        change_mask(copy / f"SegmentationClass/drawn_00000{number}.png", change)
    first, second = report_of(copy, ["train"]).problems
    assert "drawn_000000.png: the classes of the mask are none, those of its XML " in first
    assert first.endswith("in masks aeroplane is 1, and 255 is ignored")
    assert "drawn_000001.png: the classes of the mask are aeroplane, those of its XML " in second


@pytest.mark.parametrize(
    ("num_odd", "own_class", "tolerated"), [(3, "", True), (4, "", False), (3, "fox", False)]
)
def test_the_odd_mask_of_sbd_may_contradict_voc_s_xml(
    tmp_path: Path, num_odd: int, own_class: str, tolerated: bool
) -> None:
    ids = [f"2007_{n:06d}" for n in range(10)]
    names = {i: ["cat", "sofa"][: 1 + (n < num_odd)] for n, i in enumerate(ids)}
    root = voc_tree(tmp_path, {i: [[0, 8]] for i in ids}, {"train": ids}, names=names)
    if own_class:  # the user's data, whose masks can be corrected
        (root / "classes.txt").write_text("\n".join([*VOC_CLASSES, own_class]))
    report = report_of(root, ["train"])
    assert len(report.problems) == (0 if tolerated else num_odd)
    notes = [note for note in report.notes if note.startswith(f"{num_odd} of 10 masks of VOC")]
    assert len(notes) == tolerated


def test_what_is_assumed_is_noted(copy: Path) -> None:
    (note,) = report_of(copy).notes
    assert note.startswith("no classes.txt: VOC's 20 classes are assumed")
    (copy / "classes.txt").write_text("\n".join(VocDataset(copy).classes))
    (note,) = report_of(copy).notes
    assert note.startswith("in no image: aeroplane, bicycle")


def test_decoding_finds_truncated_pictures_and_names_damaged_ones(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """libjpeg tells of damage on standard error, without the file's name."""
    truncated, damaged = (copy / f"JPEGImages/drawn_00000{number}.jpg" for number in (1, 2))
    truncated.write_bytes(truncated.read_bytes()[:-600])
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-2] + bytes(50) + content[-2:])
    seen_through = copy / "JPEGImages/drawn_000003.jpg"  # Pillow warns of it: it is not damaged
    with Image.open(seen_through) as picture:
        picture.quantize(16).save(seen_through, "PNG", transparency=bytes(16))
    assert report_of(copy, ["train"]).problems == []
    report = check_data(VocDataset(copy), ["train"], scored=["train"], decode=True)
    (problem,) = report.problems
    assert problem.startswith(f"{truncated}: cannot be decoded as ")
    (note,) = [note for note in report.notes if "damaged" in note]
    assert note.startswith(f"{damaged}: damaged, though it can be decoded (Corrupt JPEG data: ")
    assert capfd.readouterr() == ("", "")


def rewritten(root: Path, number: int, **values: object) -> None:
    """Give elements of an XML other texts."""
    path = root / f"Annotations/drawn_00000{number}.xml"
    text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(
            f"<{name}>.*?</{name}>", lambda _, n=name, v=value: f"<{n}>{v}</{n}>", text, count=1
        )
        assert count
    path.write_text(text)


def test_a_size_in_the_xml_must_be_of_the_picture_s_shape_upright(copy: Path) -> None:
    def size_of(number: int) -> tuple[int, int]:
        with Image.open(copy / f"JPEGImages/drawn_00000{number}.jpg") as picture:
            return picture.size

    with Image.open(path := copy / "JPEGImages/drawn_000001.jpg") as picture:
        (exif := picture.getexif())[0x0112] = 6
        picture.save(path, exif=exif)
    change_mask(copy / "SegmentationClass/drawn_000001.png", lambda values: np.rot90(values, -1))
    for number, values in ((2, ("", "")), (3, (0, 0)), (4, (9, "x"))):  # they tell no size
        rewritten(copy, number, width=values[0], height=values[1])
    rewritten(copy, 5, width=f" {size_of(5)[0]} ", height=f"{size_of(5)[1]}.0")
    for number, change in ((6, lambda n: 3 * n), (7, lambda n: n // 2), (8, lambda n: n + 1)):
        width, height = map(change, size_of(number))  # resized since
        rewritten(copy, number, width=width, height=height)
    report, (width, height) = report_of(copy), size_of(1)
    (problem,) = report.problems
    assert f"drawn_000001.xml: <size> says {width}x{height} pixels, its picture has " in problem
    assert f" {height}x{width} when its EXIF tag has turned it" in problem
    (note,) = [note for note in report.notes if "<size>" in note]
    assert "in 3 of 12 XML, such as Annotations/drawn_000006.xml;" in note
    rewritten(copy, 1, width=height, height=width)
    assert report_of(copy).problems == []


def test_an_xml_that_names_another_picture_as_its_own_is_noted(copy: Path) -> None:
    names = ("C:\\mine\\drawn_000002.jpg", "", "elsewhere.jpg", "/x/drawn_000004.png")
    for number, name in enumerate(names, start=1):
        rewritten(copy, number, filename=name)
    assert [note for note in report_of(copy).notes if "filename" in note] == [
        "<filename> is that of another picture in 1 of 13 XML, such as "
        "Annotations/drawn_000001.xml (drawn_000002); does each XML lie beside its own picture?"
    ]


# The lists against each other, the folders, and VOC 2012's own

A, B, C = "2007_000001", "2007_000002", "2007_000003"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures of 4 x 2: `train` a, `train_aug` a and b, `val` c; b has SBD's mask only."""
    masks = {
        A: [[0, 1, 1, 255], [0, 0, 20, 255]],
        B: [[1, 1, 1, 1], [0, 0, 0, 0]],
        C: [[3, 3, 0, 0], [0, 0, 0, 0]],
    }
    voc_tree(tmp_path, masks, {"train": [A], "train_aug": [A, B], "val": [C]})
    own = tmp_path / f"SegmentationClass/{B}.png"
    own.rename(tmp_path / f"SegmentationClassAug/{B}.png")
    return tmp_path


def compared(root: Path) -> DataReport:
    report, dataset = report_of(root), VocDataset(root)
    compare_lists(report, dataset, dataset.split_names())
    return report


def test_the_page_shows_images_and_shares_of_scored_pixels(root: Path) -> None:
    report = compared(root)
    assert report.problems == []
    lines = [line.split() for line in page(report).splitlines()]
    assert ["class", "train", "train_aug", "val"] in lines
    assert ["aeroplane", "1", "33.33", "%", "2", "42.86", "%", "0", "0.00", "%"] in lines
    assert ["tvmonitor", "1", "16.67", "%", "1", "7.14", "%", "0", "0.00", "%"] in lines
    assert ["background", "50.00", "%", "50.00", "%", "75.00", "%"] in lines
    assert ["pixels", "ignored", "2", "2", "0"] in lines
    assert ["note:", "train:", "1", "image,", "VOC", "2012", "has", "1,464"] in lines
    (root / f"SegmentationClass/{A}.png").write_bytes(b"<html>")
    report = compared(root)
    assert (report.num_images["train_aug"], report.num_masks["train_aug"]) == (2, 1)
    assert (report.counts["train_aug"].images[0], report.counts["train_aug"].pixels[0]) == (1, 4)


@pytest.mark.parametrize(("split", "names"), [("train", [A, C]), ("train_aug", [A, B, C])])
def test_an_image_both_trained_on_and_scored_is_a_problem(
    root: Path, split: str, names: list[str]
) -> None:
    write_split(root, split, names)
    told = f"{split} and val share 1 image ({C}); remove them from one of the two"
    assert compared(root).problems == report_of(root).problems == [told]


def test_what_the_lists_leave_out_and_masks_without_a_picture_are_noted(root: Path) -> None:
    for n in range(4, 9):
        shutil.copy(root / f"JPEGImages/{A}.jpg", root / f"JPEGImages/2007_00000{n}.jpg")
    (root / f"JPEGImages/{B}.jpg").unlink()
    save_mask(root / "SegmentationClass/x.png", [[0]])
    write_split(root, "train_aug", [B])
    write_split(root, "test", [])
    report = compared(root)
    assert any("test.txt: the split is empty" in problem for problem in report.problems)
    for note in (
        f"train has 1 image ({A}) that train_aug lacks",
        "JPEGImages: 5 images (2007_000004, 2007_000005, 2007_000006 and 2 more) in no split",
        "SegmentationClass: 1 image (x) in no split",
        "SegmentationClass: 1 image (x) without a picture",
        f"SegmentationClassAug: 1 image ({B}) without a picture",
    ):
        assert note in report.notes


def test_an_altered_list_of_the_official_length_is_a_problem(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(f"{A}\n{B}\n".encode()).hexdigest()  # of the sorted ids
    monkeypatch.setitem(OFFICIAL_SPLITS, "train_aug", OfficialSplit(2, digest))
    write_split(root, "train_aug", [B, A])
    report = compared(root)
    assert report.official == {"train": False, "train_aug": True, "val": False}
    assert "VOC 2012's own list: train_aug" in page(report).splitlines()
    monkeypatch.setitem(OFFICIAL_SPLITS, "train_aug", OfficialSplit(2, "0" * 64))
    (problem,) = compared(root).problems
    assert problem.startswith("train_aug: as many ids as VOC 2012's list (2), but not the same;")
    (root / "classes.txt").write_text("".join(f"class {n}\n" for n in range(20)))
    report = compared(root)
    assert (report.problems, report.official) == ([], {})  # VOC's lists say nothing of it
    (root / "classes.txt").unlink()
    shutil.copy(root / f"JPEGImages/{A}.jpg", root / "JPEGImages/crack_01.jpg")
    save_mask(root / "SegmentationClass/crack_01.png", [[1] * 4] * 2)
    write_split(root, "train_aug", [A, "crack_01"])
    assert compared(root).problems == []


# A data set that was found whole is not read again until a file of it changes

CHECKED = ["train", "train_aug"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checks"


@pytest.fixture
def full_checks(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The splits of each check that reads all files."""
    seen: list[list[str]] = []

    def counted(dataset: VocDataset, splits: list[str], **more: Any) -> DataReport:
        seen.append(splits)
        return check_data(dataset, splits, **more)

    monkeypatch.setattr(checking, "check_data", counted)
    return seen


def once(root: Path, splits: list[str] = CHECKED, **more: Any) -> DataReport:
    return check_data_once(VocDataset(root), splits, scored=CHECKED, **more)


def test_a_second_check_reads_nothing_and_reports_the_same_and_the_data_folder_is_left_alone(
    copy: Path, full_checks: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(copy.rglob("*"))
    first = once(copy)
    assert first == once(copy) == check_data(VocDataset(copy), CHECKED, scored=CHECKED)
    assert full_checks == [CHECKED]
    once(copy, recheck=True)
    assert full_checks == [CHECKED] * 2
    monkeypatch.chdir(copy.parent)  # the same folder by another name
    assert once(Path(copy.name)) == first.model_copy(update={"root": Path(copy.name)})
    assert sorted(copy.rglob("*")) == before
    assert once(copy, ["val"]).num_images == {"val": 3}
    assert full_checks == [CHECKED, CHECKED, ["val"]]


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_of_a_file_is_seen_and_that_of_content_in_the_fingerprint(
    copy: Path, drawn: Path, full_checks: list[list[str]], what: str
) -> None:
    (copy / "classes.txt").write_text("\n".join(VOC_CLASSES))
    before = once(copy)
    assert before.fingerprint == check_data(VocDataset(drawn), CHECKED, scored=[]).fingerprint
    changed(copy, what)
    report = once(copy)
    assert len(full_checks) == 2
    assert (report.fingerprint != before.fingerprint) == (what != "nothing")
    if what == "pixel of a mask":  # the labels are those of XML
        assert report.fingerprints["train"] != before.fingerprints["train"]
        assert report.training_fingerprints == before.training_fingerprints
    if what == "shorter train_aug":
        assert report.fingerprints["train"] == before.fingerprints["train"]


def test_what_is_broken_or_changes_while_it_is_read_is_not_remembered(
    copy: Path, full_checks: list[list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (picture := copy / "JPEGImages/drawn_000000.jpg").rename(copy / "away.jpg")
    for _ in range(2):
        assert "drawn_000000.jpg: missing" in once(copy).problems[0]
    assert len(full_checks) == 2
    (copy / "away.jpg").rename(picture)

    def slow(dataset: VocDataset, splits: list[str], **more: Any) -> DataReport:
        report = check_data(dataset, splits, **more)
        changed(copy, "byte of an image")
        return report

    monkeypatch.setattr(checking, "check_data", slow)
    assert once(copy).problems == []
    assert not cache.exists()


@pytest.mark.parametrize("content", ["{", '{"version": 1}'])
def test_a_damaged_entry_is_as_good_as_none(
    copy: Path, full_checks: list[list[str]], cache: Path, content: str
) -> None:
    once(copy)
    (entry,) = cache.iterdir()
    entry.write_text(content)
    once(copy)
    assert len(full_checks) == 2
    assert json.loads(entry.read_text())["fingerprint"]


def test_a_cache_that_cannot_be_written_costs_only_time(
    copy: Path, full_checks: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert once(copy).problems == []
    assert len(full_checks) == 2


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks_folder() == tmp_path / "cache" / "checks"
    monkeypatch.delenv("WSSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert checks_folder() == tmp_path / "xdg" / "wsss-sweeps" / "checks"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")  # of a file of variables, which no shell reads
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checks_folder() == tmp_path / "xdg" / "wsss-sweeps" / "checks"
