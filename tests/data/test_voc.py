"""The reader of the VOC layout: what it reads, and how it refuses what it cannot use."""

import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.classes import ClassListError, read_class_list
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset


def write_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def annotation(*names: str) -> str:
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    return f"<annotation><filename>a.jpg</filename>{objects}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Image `a` of 6 x 4 pixels: cat (8) and person (15) with XML; the split `train` holds it."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (6, 4), (90, 120, 30)).save(tmp_path / "JPEGImages/a.jpg")
    values = np.zeros((4, 6))
    values[1, 1:3], values[2, 3], values[0, 0] = 8, 15, 255
    write_mask(tmp_path / "SegmentationClass/a.png", values)
    (tmp_path / "Annotations/a.xml").write_text(annotation("person", "cat", "person"))
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    return tmp_path


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """Expect a DataError of one line that holds all parts: the file, the fault, the remedy."""
    with pytest.raises(DataError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# What it reads


def test_ids_of_a_split_come_in_the_order_of_its_file(root: Path) -> None:
    lists = root / "ImageSets/Segmentation"
    (lists / "val.txt").write_text("2007_000033\r\n2007_000032\n\n2008.x-1_b  \n")
    dataset = VocDataset(root)
    assert dataset.image_ids("val") == ["2007_000033", "2007_000032", "2008.x-1_b"]
    assert dataset.split_names() == ["train", "val"]


def test_labels_come_from_the_xml_once_each_and_in_class_order(root: Path) -> None:
    sample = VocDataset(root).sample("a")
    assert sample.labels == (7, 14)  # cat and person: the 8th and the 15th class, from 0
    assert sample.label_source == "xml"
    assert sample.image_path == root / "JPEGImages/a.jpg"
    (root / "Annotations/a.xml").write_text(annotation("dog"))
    assert VocDataset(root).sample("a").labels == (11,)  # whatever the mask holds


def test_without_xml_labels_come_from_the_mask_and_the_sample_says_so(root: Path) -> None:
    (root / "Annotations/a.xml").unlink()
    sample = VocDataset(root).sample("a")
    assert sample.labels == (7, 14)
    assert sample.label_source == "mask"


def test_the_original_mask_is_preferred_to_the_augmented_one(root: Path) -> None:
    write_mask(root / "SegmentationClassAug/a.png", np.full((4, 6), 3))
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
    with refused("a.png", "value 8 is no class", "0..3 and 255"):
        dataset.mask("a")


# What it refuses, with the file, the fault and the remedy


def test_a_folder_which_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with refused(str(tmp_path), "no folder JPEGImages", "VOCdevkit/VOC2012"):
        VocDataset(tmp_path)


def test_a_missing_mask_is_refused(root: Path) -> None:
    (root / "SegmentationClass/a.png").rename(root / "SegmentationClass/a.TIF")
    with refused("SegmentationClass/a.png: no mask here (no file, but a.TIF)", "add one as PNG"):
        VocDataset(root).mask("a")


@pytest.mark.parametrize("form", ["EPS", "GIF"])
def test_a_mask_of_another_format_is_refused_whatever_its_ending(root: Path, form: str) -> None:
    # Pillow starts Ghostscript to decode EPS.
    image = Image.new("RGB" if form == "EPS" else "L", (6, 4))
    image.save(root / "SegmentationClass/a.png", format=form)
    with refused("SegmentationClass/a.png", "cannot be decoded"):
        VocDataset(root).mask("a")


def test_a_png_cut_before_its_last_pixel_is_refused(root: Path) -> None:
    path = root / "SegmentationClass/a.png"
    whole = path.read_bytes()
    dataset = VocDataset(root)
    for length in [*range(0, whole.index(b"IDAT"), 50), whole.index(b"IDAT") + 8]:
        path.write_bytes(whole[:length])
        with refused("SegmentationClass/a.png", "cannot be decoded", "replace the file"):
            dataset.mask("a")


def test_a_mask_which_claims_a_gigantic_size_is_refused(root: Path) -> None:
    # A decompression bomb: a header of 60,000 x 60,000 pixels. Pillow's own error is no OSError.
    path = root / "SegmentationClass/a.png"
    header = bytearray(path.read_bytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(header))
    with refused("SegmentationClass/a.png"):
        VocDataset(root).mask("a")


def test_an_unknown_class_in_the_xml_is_refused(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(annotation("cat", "unicorn"))
    with refused("Annotations/a.xml", "unknown class 'unicorn'", "add it to classes.txt", "person"):
        VocDataset(root).sample("a")


def test_broken_xml_is_refused(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(annotation("cat")[:-5])
    with refused("Annotations/a.xml", "not well-formed XML", "replace it"):
        VocDataset(root).sample("a")


def test_an_object_without_a_name_is_refused_rather_than_skipped(root: Path) -> None:
    for empty in ("<object></object>", "<object><name>\n </name></object>"):
        text = annotation("cat").replace("</annotation>", f"{empty}</annotation>")
        (root / "Annotations/a.xml").write_text(text)
        with refused("Annotations/a.xml", "an object without a name"):
            VocDataset(root).sample("a")
    (root / "Annotations/a.xml").write_text(annotation("cat</name><name>dog"))
    with refused("Annotations/a.xml", "an object of several names"):
        VocDataset(root).sample("a")


def test_an_image_without_any_class_is_refused(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(annotation())
    with refused("Annotations/a.xml", "no class present"):
        VocDataset(root).sample("a")
    (root / "Annotations/a.xml").unlink()
    write_mask(root / "SegmentationClass/a.png", np.full((4, 6), 255))
    with refused("SegmentationClass/a.png", "no class present"):
        VocDataset(root).sample("a")


def test_an_empty_split_is_refused(root: Path) -> None:
    (root / "ImageSets/Segmentation/empty.txt").write_text("\n \n")
    with refused("Segmentation/empty.txt", "the split is empty", "one image id per line"):
        VocDataset(root).image_ids("empty")


def test_an_unknown_split_is_refused_and_the_known_ones_are_named(root: Path) -> None:
    with refused("Segmentation/test.txt", "no such split", "there are: train"):
        VocDataset(root).image_ids("test")
    shutil.rmtree(root / "ImageSets")
    with refused("Segmentation/train.txt", "there are: none", "one image id per line"):
        VocDataset(root).image_ids("train")


def test_an_id_listed_twice_is_refused(root: Path) -> None:
    (root / "ImageSets/Segmentation/train.txt").write_text("b\na\nb\n")
    with refused("Segmentation/train.txt", "b is listed twice", "keep it once"):
        VocDataset(root).image_ids("train")


@pytest.mark.parametrize(
    "image_id", ["../x", "/etc/passwd", "a/b", ".hidden", "a\\b", "-rf", "ä", "\x00"]
)
def test_an_id_which_could_leave_its_folder_is_refused(root: Path, image_id: str) -> None:
    path = root / "ImageSets/Segmentation/train.txt"
    path.write_text(f"a\n{image_id}\n", encoding="utf-8")
    with refused("Segmentation/train.txt", f"{image_id!r} is ", "use letters"):
        VocDataset(root).image_ids("train")


@pytest.mark.parametrize(
    "name",
    [
        *("<script>", "=cmd()", "\\input", "a/b", '"', "'", "`ls`", "$x", "a&b", "a\x00b"),
        *("@SUM(A1)", "+1+cmd|x", "-2+3", "[/bold]", "[red]x", "{{x}}", "cat|dog", "\u202etac"),
        "x" * 81,
    ],
)
def test_a_class_name_with_a_meaning_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "classes.txt").write_text(f"cat\n{name}\n", encoding="utf-8")
    with pytest.raises(ClassListError) as caught:
        read_class_list(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'classes.txt'}: class name {name!r} is not allowed")
    assert "use letters, digits" in message


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "0 classes; write 1 to 254 names"),
        ("\n".join(f"c{i}" for i in range(255)), "255 classes; write 1 to 254 names"),
        ("0 bg\n1: cat\n", "'0 bg' is a number and a name; write the names alone"),
        ("cat\ndog\n cat\n", "listed twice: cat; keep each name once"),
        ("cup\ndog\nCup\n", "'cup' and 'Cup' differ only in upper and lower case"),
    ],
)
def test_an_unusable_class_list_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ClassListError, match=re.escape(fault)):
        read_class_list(tmp_path)


def test_a_class_list_of_254_names_fills_the_mask_values(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(f"c{i}" for i in range(254)))
    assert len(read_class_list(tmp_path)) == 254


# Other tools' spellings


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".png"])
def test_a_picture_is_found_in_any_spelling_of_its_ending(root: Path, ending: str) -> None:
    (root / "JPEGImages/._a.jpg").write_bytes(b"of macOS")
    (root / "SegmentationClass/a.png").rename(root / "SegmentationClass/a.PNG")
    (root / "Annotations/a.xml").rename(root / "Annotations/a.XML")
    (root / "ImageSets/Segmentation/._train.txt").write_bytes(b"\0\5")
    picture = root / f"JPEGImages/a{ending}"
    (root / "JPEGImages/a.jpg").rename(picture)
    dataset = VocDataset(root)
    assert dataset.split_names() == ["train"]
    assert (dataset.sample("a").image_path, dataset.sample("a").label_source) == (picture, "xml")
    assert dataset.image_size("a") == (6, 4)
    assert dataset.mask("a").max() == 255
    shutil.copy(picture, root / "JPEGImages/a.webp")
    with refused("JPEGImages: a", "a.webp are both a", "keep one"):
        VocDataset(root).sample("a")


def test_a_second_picture_beside_the_jpg_is_refused(root: Path) -> None:
    Image.new("RGB", (6, 4)).save(root / "JPEGImages/a.png")
    with refused("JPEGImages: a.jpg and a.png are both a; keep one of them"):
        VocDataset(root).sample("a")


@pytest.mark.parametrize(
    "name", ["JPEGImages/a.jpg", "SegmentationClass/a.png", "Annotations/a.xml", "classes.txt"]
)
def test_a_pipe_is_refused_and_not_waited_for(root: Path, name: str) -> None:
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)

    def read() -> None:
        VocDataset(root).sample("a")
        VocDataset(root).mask("a")

    with pytest.raises((DataError, ClassListError), match=f"{name}: a pipe, socket or device; put"):
        read()


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


@pytest.mark.parametrize("line", ["cam1/x", "cam1/x.jpg", "/JPEGImages/cam1/x.jpg"])
def test_a_picture_in_a_folder_below_is_refused_with_the_remedy(root: Path, line: str) -> None:
    """CVAT writes names with folders."""
    (root / "JPEGImages/cam1").mkdir()
    (root / "ImageSets/Segmentation/train.txt").write_text(line)
    with pytest.raises(
        DataError, match=r"train\.txt: .* in a folder below JPEGImages; move its fi"
    ):
        VocDataset(root).image_ids("train")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a 1", "'a 1' is an id with labels after it"),
        ("a -1 0.0", "an id with labels after"),
        ("a,1,0", "'a,1,0' is an id with labels after it"),
        ("a cat dog", "'a cat dog' is more than an id"),
        ("x/a.jpg", "a path outside JPEGImages"),
        ("/JPEGImages/a.jpg /SegmentationClass/b.png", "names two images"),
    ],
)
def test_a_line_of_another_format_is_named_for_what_it_is(root: Path, line: str, what: str) -> None:
    (root / "ImageSets/Segmentation/train.txt").write_text(f"{line}\n")
    with refused("Segmentation/train.txt", what):
        VocDataset(root).image_ids("train")


def test_an_image_with_spaces_in_its_name_is_to_be_renamed(root: Path) -> None:
    (root / "ImageSets/Segmentation/train.txt").write_text("photo (1)\n")
    (root / "JPEGImages/photo (1).jpg").touch()
    with refused("'photo (1)' is no valid image id; rename its files", "no spaces"):
        VocDataset(root).image_ids("train")


def test_a_file_of_another_kind_is_named_for_what_it_is(root: Path) -> None:
    path = root / "ImageSets/Segmentation/val.txt"
    path.write_text("a\n", encoding="utf-16")
    with refused("val.txt: UTF-16 text", "save it as UTF-8"):
        VocDataset(root).image_ids("val")
    path.write_bytes(b"\xe4\n")
    with refused("val.txt: not UTF-8 text", "Latin-1"):
        VocDataset(root).image_ids("val")
    path.unlink()
    path.mkdir()
    with refused("val.txt: Is a directory"):
        VocDataset(root).image_ids("val")
    for name in ("JPEGImages/b.jpg", "ImageSets/Segmentation/gone.txt", "Annotations/b.xml"):
        (root / name).symlink_to(root / "nowhere")
    with refused("b.jpg: missing (a broken link)"):
        VocDataset(root).image_size("b")
    with refused("gone.txt: No such file or directory (a broken link)"):
        VocDataset(root).image_ids("gone")
    with refused("b.xml: No such file or directory (a broken link)"):
        VocDataset(root).sample("b")


def test_line_breaks_within_a_name_and_a_byte_order_mark_mean_nothing(root: Path) -> None:
    (root / "classes.txt").write_text("\ufeffcup\r\nrust spot\r\n", encoding="utf-8")
    text = annotation("\n  rust\n  spot\n", "cup ").replace("><", ">\r\n<")
    (root / "Annotations/a.xml").write_text(f"\ufeff{text}", encoding="utf-8")
    assert VocDataset(root).sample("a").labels == (0, 1)


@pytest.mark.parametrize("name", ["class_names.txt", "labelmap.txt", "Classes.txt", "obj.names"])
def test_the_class_list_of_another_tool_is_not_taken_for_voc(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("_background_\ncup\n")
    with pytest.raises(ClassListError, match=rf"classes.txt: missing, but there is {name}; write"):
        read_class_list(tmp_path)
    (tmp_path / "classes.txt").write_text("cup\n")
    assert read_class_list(tmp_path) == ("cup",)


@pytest.mark.parametrize(
    "name", ["background", "_background_", "__background__", "BG", "Void", "unlabeled"]
)
def test_background_and_ignore_have_no_line_in_a_class_list(tmp_path: Path, name: str) -> None:
    (tmp_path / "classes.txt").write_text(f"{name}\ncup\n")
    with pytest.raises(ClassListError, match=rf"'{name}' is no class.*remove the line"):
        read_class_list(tmp_path)
