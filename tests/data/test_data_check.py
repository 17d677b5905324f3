"""The check of a data set: what it finds, the fingerprint that names its content, its memory."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.basics.printable import command
from wsss.data import check as checking
from wsss.data.check import MAX_PROBLEMS, DataReport, check_data, check_data_once, checks_folder
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset

SPLITS = ["train", "train_aug", "val"]
VOC_NAMES = {"bird": 2, "boat": 3, "car": 6, "cat": 7, "horse": 12, "sheep": 16}  # aeroplane is 0


@pytest.fixture
def copy(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "voc"))


def report_of(root: Path, splits: list[str] | None = None) -> DataReport:
    return check_data(VocDataset(root), splits or SPLITS, scored=SPLITS)


def change_mask(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(path) as image:
        values, palette = np.array(image), image.getpalette()
    changed = Image.fromarray(change(values).astype(np.uint8))
    changed.putpalette(palette or [])
    changed.save(path)


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


def test_the_fingerprint_is_the_same_wherever_the_data_set_lies(drawn: Path, copy: Path) -> None:
    assert report_of(copy).fingerprint == report_of(drawn).fingerprint


def test_the_fingerprint_changes_with_one_pixel_of_a_mask(drawn: Path, copy: Path) -> None:
    def change(values: np.ndarray) -> np.ndarray:
        values[0, 0] = 255 if values[0, 0] == 0 else 0
        return values

    change_mask(copy / "SegmentationClass/drawn_000003.png", change)
    report = report_of(copy)
    report.raise_if_broken()
    before = report_of(drawn)
    assert report.fingerprint != before.fingerprint
    assert report.fingerprints["train"] != before.fingerprints["train"]
    assert report.fingerprints["val"] == before.fingerprints["val"]
    assert report.training_fingerprints == before.training_fingerprints  # labels are those of XML


def label(root: Path) -> None:
    path = root / "Annotations/drawn_000002.xml"
    name = next(n for n in ("dog", "cow") if n not in path.read_text())
    path.write_text(re.sub(r"<name>\w+</name>", f"<name>{name}</name>", path.read_text(), count=1))


def longer_image(root: Path) -> None:
    path = root / "JPEGImages/drawn_000000.jpg"
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def byte_of_an_image(root: Path) -> None:
    path = root / "JPEGImages/drawn_000000.jpg"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def name_of_a_class(root: Path) -> None:
    names = ["spaceship", *VocDataset(root).classes[1:]]  # no drawn image holds an aeroplane
    (root / "classes.txt").write_text("\n".join(names))


def shorter_split(root: Path) -> None:
    path = root / "ImageSets/Segmentation/train.txt"
    path.write_text("\n".join(path.read_text().split()[:-1]))


def touched_mask(root: Path) -> None:
    os.utime(root / "SegmentationClass/drawn_000003.png")


def missing_xml(root: Path) -> None:
    (root / "Annotations/drawn_000002.xml").unlink()


def added_xml(root: Path) -> None:
    ids = (root / "ImageSets/Segmentation/train_aug.txt").read_text().split()
    new = next(i for i in ids if not (root / f"Annotations/{i}.xml").exists())
    shutil.copy(root / "Annotations/drawn_000002.xml", root / f"Annotations/{new}.xml")


CHANGES = [label, longer_image, byte_of_an_image, name_of_a_class, shorter_split]


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with_any_content(
    drawn: Path, copy: Path, change: Callable[[Path], None]
) -> None:
    change(copy)
    assert report_of(copy).fingerprint != report_of(drawn).fingerprint


def test_the_fingerprint_changes_with_the_order_of_a_split_and_with_train_aug(
    drawn: Path, copy: Path
) -> None:
    lists = copy / "ImageSets/Segmentation"
    ids = (lists / "train.txt").read_text().split()
    (lists / "train.txt").write_text("\n".join([*ids[:-2], ids[-1], ids[-2]]))
    reordered = report_of(copy).fingerprint  # the order of an epoch follows the split's
    (lists / "train.txt").write_text("\n".join(ids))
    more = (lists / "train_aug.txt").read_text().split()
    (lists / "train_aug.txt").write_text("\n".join(more[1:]))  # its first is in train as well
    aug = report_of(copy).fingerprint
    assert len({report_of(drawn).fingerprint, reordered, aug}) == 3


def test_all_problems_come_in_one_error_each_with_its_file(copy: Path) -> None:
    (copy / "JPEGImages/drawn_000000.jpg").unlink()
    change_mask(copy / "SegmentationClass/drawn_000001.png", lambda values: values[:-1])
    (copy / "Annotations/drawn_000005.xml").write_text("<annotation><object>")
    (copy / "ImageSets/Segmentation/val.txt").write_text("")
    report = report_of(copy, [*SPLITS, "test"])
    expected = [
        "val.txt: the split is empty",
        "test.txt: no such split",
        "JPEGImages/drawn_000000.jpg: missing",
        "drawn_000001.png: ",
        "drawn_000005.xml: not well-formed XML",
    ]
    assert len(report.problems) == len(expected)  # an image of two splits is told once
    with pytest.raises(DataError) as caught:
        report.raise_if_broken()
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert str(copy) in line
        assert part in line


def test_more_problems_than_fit_are_counted(copy: Path) -> None:
    names = [f"gone_{index:02d}" for index in range(MAX_PROBLEMS + 3)]
    (copy / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    with pytest.raises(DataError) as caught:
        report_of(copy, ["val"]).raise_if_broken()
    lines = str(caught.value).splitlines()
    assert len(lines) == MAX_PROBLEMS + 1
    assert "gone_00.jpg: missing" in lines[0]
    see = command("wsss", "data", "check", "--json", "--data", copy)
    assert lines[-1] == f"... and 3 more; see: {see}"


def test_a_mask_is_needed_where_it_is_scored_or_gives_the_labels(copy: Path) -> None:
    ids = VocDataset(copy).image_ids("train")
    for image_id in ids:
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (copy / f"{folder}/{image_id}.png").unlink()
    dataset = VocDataset(copy)
    report = check_data(dataset, SPLITS, scored=["val"])
    assert report.problems == []
    assert report.num_masks == {"train": 0, "train_aug": 6, "val": 3}
    assert (
        "train: 10 of 10 images have no mask; XML is enough for training, not for scoring"
    ) in report.notes
    assert (
        f"{ids[0]}.png: no mask here" in check_data(dataset, SPLITS, scored=["train"]).problems[0]
    )
    assert check_data(dataset, ["train"], scored=[]).notes[-1].startswith("no image has a mask")
    (copy / f"Annotations/{ids[0]}.xml").unlink()
    (problem,) = check_data(dataset, SPLITS, scored=["val"]).problems
    assert f"{ids[0]}.xml: no annotation here, and no mask" in problem


def test_an_image_without_a_class_can_be_scored_but_not_trained_on(copy: Path) -> None:
    (copy / "Annotations/drawn_000000.xml").unlink()
    change_mask(copy / "SegmentationClass/drawn_000000.png", np.zeros_like)
    assert "no class present" in report_of(copy).problems[0]
    dataset = VocDataset(copy)
    for _ in range(2):  # the second report is a remembered one
        report = check_data_once(dataset, ["train"], scored=["train"], may_be_empty=True)
        assert report.problems == []
        with pytest.raises(DataError, match="no class present"):
            check_data_once(dataset, ["train"], scored=["train"]).raise_if_broken()


def test_a_mask_that_contradicts_its_xml_is_a_problem(copy: Path) -> None:
    lines = {}
    for number, change in enumerate(
        (lambda v: np.where(v > 0, 255, 0), lambda v: v * 0, lambda v: np.where(v % 255, 1, v))
    ):
        change_mask(copy / f"SegmentationClass/drawn_00000{number}.png", change)
        lines[number] = f"drawn_00000{number}.png: "
    report = report_of(copy, ["train"])
    assert len(report.problems) == 3
    assert f"{lines[0]}all background but 255, which is ignored, though its" in report.problems[0]
    assert f"{lines[1]}all background, though its XML names " in report.problems[1]
    assert f"{lines[2]}the mask alone has aeroplane, its XML alone has " in report.problems[2]
    assert report.problems[0].endswith("write class numbers, where aeroplane is 1")


@pytest.mark.parametrize(("num_odd", "tolerated"), [(3, True), (4, False)])
def test_the_odd_mask_of_sbd_may_contradict_voc_s_xml(
    copy: Path, num_odd: int, tolerated: bool
) -> None:
    shutil.rmtree(copy / "SegmentationClass")
    ids = [f"2007_{n:06d}" for n in range(10)]
    for n, image_id in enumerate(ids):
        for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClassAug", "png")):
            shutil.copy(
                copy / f"{folder}/drawn_000000.{ending}", copy / f"{folder}/{image_id}.{ending}"
            )
        text = (copy / "Annotations/drawn_000000.xml").read_text()
        more = "<object><name>sofa</name></object></annotation>" if n < num_odd else "</annotation>"
        (copy / f"Annotations/{image_id}.xml").write_text(text.replace("</annotation>", more))
    (copy / "ImageSets/Segmentation/train.txt").write_text("\n".join(ids))
    report = report_of(copy, ["train"])
    assert len(report.problems) == (0 if tolerated else num_odd)
    assert (
        any(note.startswith(f"{num_odd} of 10 masks of VOC") for note in report.notes) == tolerated
    )


def test_masks_of_another_kind_are_named_where_masks_are_missing(copy: Path) -> None:
    """labelme writes arrays beside, or instead of, PNGs."""
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        for path in (copy / folder).iterdir():
            path.rename(path.with_suffix(".npy"))
    told = "(SegmentationClass has drawn_000000.npy; masks are PNGs)"
    (problem,) = check_data(VocDataset(copy), ["train"], scored=["train"]).problems
    assert f"has no masks {told}, but train is to be scored" in problem
    notes = check_data(VocDataset(copy), ["train"], scored=[]).notes
    assert any(f"no image has a mask {told}: XML is enough" in note for note in notes)


def test_what_is_assumed_is_noted(copy: Path) -> None:
    (note,) = report_of(copy).notes
    assert note.startswith("no classes.txt: VOC's 20 classes are assumed")
    (copy / "classes.txt").write_text("\n".join(VocDataset(copy).classes))
    (note,) = report_of(copy).notes
    assert note.startswith("in no image: aeroplane, bicycle")


def test_a_truncated_picture_is_found_when_pictures_are_decoded(copy: Path) -> None:
    path = copy / "JPEGImages/drawn_000001.jpg"
    path.write_bytes(path.read_bytes()[:-600])
    dataset = VocDataset(copy)
    assert check_data(dataset, ["train"], scored=["train"]).problems == []
    (problem,) = check_data(dataset, ["train"], scored=["train"], decode=True).problems
    assert problem.startswith(f"{path}: cannot be decoded (")


def test_a_damaged_picture_that_can_be_decoded_is_named(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """libjpeg says it on standard error, without the file's name."""
    path = copy / "JPEGImages/drawn_000001.jpg"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes(50) + content[-2:])
    report = check_data(VocDataset(copy), ["train"], scored=["train"], decode=True)
    assert report.problems == []
    (note,) = [note for note in report.notes if "damaged" in note]
    assert note.startswith(f"{path}: damaged, though it can be decoded (Corrupt JPEG data: ")
    assert capfd.readouterr() == ("", "")


def rewritten(path: Path, **values: object) -> None:
    """Give elements of an XML other texts."""
    text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"<{name}>.*?</{name}>", f"<{name}>{value}</{name}>", text, count=1)
        assert count
    path.write_text(text)


def test_a_size_in_the_xml_that_contradicts_the_picture_is_a_problem(copy: Path) -> None:
    with Image.open(copy / "JPEGImages/drawn_000001.jpg") as picture:
        width, height = picture.size
    rewritten(copy / "Annotations/drawn_000001.xml", width=width, height=height + 9)
    for number, values in ((2, ("", "")), (3, (0, 0)), (4, (9, "x"))):  # they tell no size
        rewritten(copy / f"Annotations/drawn_00000{number}.xml", width=values[0], height=values[1])
    with Image.open(copy / "JPEGImages/drawn_000005.jpg") as picture:
        own = picture.size
    rewritten(copy / "Annotations/drawn_000005.xml", width=f" {own[0]} ", height=f"{own[1]}.0")
    (problem,) = report_of(copy).problems
    assert problem == (
        f"{copy}/Annotations/drawn_000001.xml: <size> says {width}x{height + 9} pixels, "
        f"drawn_000001.jpg has {width}x{height}: is it the XML of another picture? Put its own "
        "there, or remove <size>"
    )


@pytest.mark.parametrize("change", [lambda side: 3 * side, lambda side: side // 2, lambda s: s + 1])
def test_the_size_of_before_a_picture_was_resized_is_noted(
    copy: Path, change: Callable[[int], int]
) -> None:
    with Image.open(copy / "JPEGImages/drawn_000001.jpg") as picture:
        width, height = map(change, picture.size)
    rewritten(copy / "Annotations/drawn_000001.xml", width=width, height=height)
    report = report_of(copy)
    assert report.problems == []
    (note,) = [note for note in report.notes if "<size>" in note]
    assert f"in 1 of 19 XML, such as Annotations/drawn_000001.xml ({width}x{height})" in note


def test_a_size_that_was_written_before_the_exif_tag_turned_the_picture_says_so(copy: Path) -> None:
    path = copy / "JPEGImages/drawn_000001.jpg"
    with Image.open(path) as picture:
        size, exif = picture.size, picture.getexif()
        assert size[0] != size[1]
        exif[0x0112] = 6
        picture.save(path, exif=exif)
    change_mask(copy / "SegmentationClass/drawn_000001.png", lambda values: np.rot90(values, -1))
    (problem,) = report_of(copy).problems
    assert "that is before its EXIF tag turns it" in problem
    rewritten(copy / "Annotations/drawn_000001.xml", width=size[1], height=size[0])
    assert report_of(copy).problems == []


def test_an_xml_that_names_another_picture_as_its_own_is_noted(copy: Path) -> None:
    annotations = copy / "Annotations"
    rewritten(annotations / "drawn_000001.xml", filename="C:\\\\mine\\\\drawn_000002.jpg")
    for number, name in enumerate(("", "elsewhere.jpg", "/x/drawn_000004.png", "../../etc/passwd")):
        rewritten(annotations / f"drawn_00000{number + 2}.xml", filename=name)
    notes = report_of(copy).notes
    assert [note for note in notes if "filename" in note] == [
        "<filename> is that of another picture in 1 of 19 XML, such as "
        "Annotations/drawn_000001.xml (drawn_000002.jpg); does each XML lie beside its own picture?"
    ]


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

    def counted(
        dataset: VocDataset, splits: list[str], *, scored: list[str], may_be_empty: bool
    ) -> DataReport:
        seen.append(splits)
        return check_data(dataset, splits, scored=scored, may_be_empty=may_be_empty)

    monkeypatch.setattr(checking, "check_data", counted)
    return seen


def test_a_second_check_reads_nothing_and_reports_the_same_and_the_data_folder_is_left_alone(
    copy: Path, full_checks: list[list[str]]
) -> None:
    before = sorted(copy.rglob("*"))
    first = check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    second = check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    assert full_checks == [CHECKED]
    assert first == second == check_data(VocDataset(copy), CHECKED, scored=CHECKED)
    assert sorted(copy.rglob("*")) == before


def test_other_splits_are_checked_on_their_own(copy: Path, full_checks: list[list[str]]) -> None:
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    report = check_data_once(VocDataset(copy), ["val"], scored=CHECKED)
    assert full_checks == [CHECKED, ["val"]]
    assert report.num_images == {"val": 3}


@pytest.mark.parametrize("change", [*CHANGES, touched_mask, missing_xml, added_xml])
def test_any_change_of_a_file_is_seen(
    copy: Path, full_checks: list[list[str]], change: Callable[[Path], None]
) -> None:
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    change(copy)
    report = check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    assert len(full_checks) == 2
    assert report == check_data(VocDataset(copy), CHECKED, scored=CHECKED)


def test_a_file_outside_the_splits_changes_nothing(
    copy: Path, full_checks: list[list[str]]
) -> None:
    check_data_once(VocDataset(copy), ["train"], scored=CHECKED)
    (copy / "JPEGImages/new.jpg").write_bytes(b"")
    check_data_once(VocDataset(copy), ["train"], scored=CHECKED)
    assert len(full_checks) == 1


def test_recheck_reads_all_again(copy: Path, full_checks: list[list[str]]) -> None:
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    path = copy / "SegmentationClass/drawn_000003.png"
    stat, content = path.stat(), path.read_bytes()
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED, recheck=True)
    assert len(full_checks) == 2
    path.write_bytes(b"x" * len(content))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # of equal size and time: seen still
    with pytest.raises(DataError, match="drawn_000003"):
        check_data_once(VocDataset(copy), CHECKED, scored=CHECKED).raise_if_broken()


def test_a_broken_data_set_is_never_remembered(
    copy: Path, full_checks: list[list[str]], cache: Path
) -> None:
    (copy / "JPEGImages/drawn_000000.jpg").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="drawn_000000"):
            check_data_once(VocDataset(copy), CHECKED, scored=CHECKED).raise_if_broken()
    with pytest.raises(DataError, match="no such split"):
        check_data_once(VocDataset(copy), ["nosuch"], scored=CHECKED).raise_if_broken()
    assert len(full_checks) == 3
    assert not cache.exists()


def test_files_that_change_while_they_are_read_are_not_remembered(
    copy: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def slow(
        dataset: VocDataset, splits: list[str], *, scored: list[str], may_be_empty: bool
    ) -> DataReport:
        report = check_data(dataset, splits, scored=scored, may_be_empty=may_be_empty)
        longer_image(copy)
        return report

    monkeypatch.setattr(checking, "check_data", slow)
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_entry_is_as_good_as_none(
    copy: Path, full_checks: list[list[str]], cache: Path, content: str
) -> None:
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    (entry,) = cache.iterdir()
    entry.write_text(content)
    check_data_once(VocDataset(copy), CHECKED, scored=CHECKED)
    assert len(full_checks) == 2
    assert json.loads(entry.read_text())["fingerprint"]


def test_a_cache_that_cannot_be_written_costs_only_time(
    copy: Path, full_checks: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert check_data_once(VocDataset(copy), CHECKED, scored=CHECKED).problems == []
    assert len(full_checks) == 2


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks_folder() == tmp_path / "cache" / "checks"
    monkeypatch.delenv("WSSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert checks_folder() == tmp_path / "xdg" / "wsss-sweeps" / "checks"
