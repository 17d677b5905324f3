"""The reader of the VOC layout: what it reads, and how it refuses what it cannot use."""

import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wsss.data.classes import VOC_CLASSES, ClassListError, read_class_list
from wsss.data.voc import DataError, VocDataset, label_vector, labels_of_mask

T = TypeVar("T")

fuzz = settings(
    max_examples=80, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def write_mask(path: Path, values: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(values.astype(np.uint8))
    if mode == "P":
        mask.putpalette([0, 0, 0] * 256)
    mask.convert(mode).save(path)


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


def value_or_refusal(read: Callable[[], T]) -> tuple[T | None, str]:
    """Return what `read` returns, or the message of the error with which the reader refuses it."""
    try:
        return read(), ""
    except (DataError, ClassListError) as error:
        return None, str(error)


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


def test_the_xml_decides_even_where_the_mask_disagrees(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(annotation("dog"))
    assert VocDataset(root).sample("a").labels == (11,)


def test_without_xml_labels_come_from_the_mask_and_the_sample_says_so(root: Path) -> None:
    (root / "Annotations/a.xml").unlink()
    sample = VocDataset(root).sample("a")
    assert sample.labels == (7, 14)
    assert sample.label_source == "mask"


def test_labels_of_a_mask_leave_out_background_and_ignored_pixels() -> None:
    mask = np.array([[0, 255, 20], [1, 1, 0]], np.uint8)
    assert labels_of_mask(mask) == (0, 19)


def test_a_label_vector_is_one_at_the_present_classes() -> None:
    vector = label_vector((0, 3), 5)
    assert vector.tolist() == [1, 0, 0, 1, 0]
    assert vector.dtype == np.float32


def test_a_mask_gives_palette_indices_and_not_colours(root: Path) -> None:
    expected = [[255, 0, 0, 0, 0, 0], [0, 8, 8, 0, 0, 0], [0, 0, 0, 15, 0, 0], [0] * 6]
    assert VocDataset(root).mask("a").tolist() == expected


def test_a_grey_mask_is_read_as_it_is(root: Path) -> None:
    write_mask(root / "SegmentationClass/a.png", np.full((4, 6), 20), mode="L")
    assert set(np.unique(VocDataset(root).mask("a"))) == {20}


def test_the_original_mask_is_preferred_to_the_augmented_one(root: Path) -> None:
    write_mask(root / "SegmentationClassAug/a.png", np.full((4, 6), 3))
    dataset = VocDataset(root)
    assert dataset.mask_path("a") == root / "SegmentationClass/a.png"
    (root / "SegmentationClass/a.png").unlink()
    assert dataset.mask_path("a") == root / "SegmentationClassAug/a.png"
    assert set(np.unique(dataset.mask("a"))) == {3}


def test_the_size_of_an_image_is_width_then_height(root: Path) -> None:
    assert VocDataset(root).image_size("a") == (6, 4)


def test_the_twenty_classes_of_voc_are_the_default(root: Path) -> None:
    classes = VocDataset(root).classes
    assert len(classes) == 20
    assert (classes[0], classes[7], classes[14], classes[19]) == (
        "aeroplane", "cat", "person", "tvmonitor",
    )  # fmt: skip


def test_a_custom_class_list_renames_and_bounds_the_labels(root: Path) -> None:
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


def test_a_missing_image_is_refused(root: Path) -> None:
    (root / "JPEGImages/a.jpg").unlink()
    with refused("JPEGImages/a.jpg: missing", "add the image or take it off its splits"):
        VocDataset(root).image_size("a")


def test_a_file_which_is_no_image_is_refused(root: Path) -> None:
    (root / "JPEGImages/a.jpg").write_bytes(b"<html>404</html>")
    with refused("JPEGImages/a.jpg", "cannot be read as an image", "replace it"):
        VocDataset(root).image_size("a")


def test_a_missing_mask_is_refused(root: Path) -> None:
    (root / "SegmentationClass/a.png").unlink()
    with refused("SegmentationClass/a.png", "nor in SegmentationClassAug", "add one"):
        VocDataset(root).mask("a")


@pytest.mark.parametrize("value", [21, 128, 254])
def test_a_mask_value_between_the_classes_and_255_is_refused(root: Path, value: int) -> None:
    write_mask(root / "SegmentationClass/a.png", np.full((4, 6), value))
    with refused("SegmentationClass/a.png", f"value {value} is no class", "allowed are 0..20"):
        VocDataset(root).mask("a")


@pytest.mark.parametrize("form", ["EPS", "GIF"])
def test_a_mask_of_another_format_is_refused_whatever_its_ending(root: Path, form: str) -> None:
    # Pillow starts Ghostscript to decode EPS.
    image = Image.new("RGB" if form == "EPS" else "L", (6, 4))
    image.save(root / "SegmentationClass/a.png", format=form)
    with refused("SegmentationClass/a.png", "cannot be read as an image"):
        VocDataset(root).mask("a")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "I;16"])
def test_a_mask_of_another_mode_is_refused(root: Path, mode: str) -> None:
    Image.new(mode, (6, 4)).save(root / "SegmentationClass/a.png")
    with refused("SegmentationClass/a.png", f"mode {mode}", "palette or 8-bit grey"):
        VocDataset(root).mask("a")


def test_a_png_cut_before_its_last_pixel_is_refused(root: Path) -> None:
    path = root / "SegmentationClass/a.png"
    whole = path.read_bytes()
    dataset = VocDataset(root)
    for length in [*range(0, whole.index(b"IDAT"), 50), whole.index(b"IDAT") + 8]:
        path.write_bytes(whole[:length])
        with refused("SegmentationClass/a.png", "cannot be read as an image", "replace it"):
            dataset.mask("a")


def test_a_picture_which_claims_a_gigantic_size_is_refused(root: Path) -> None:
    # A decompression bomb: a header of 60,000 x 60,000 pixels. Pillow's own error is no OSError.
    header = bytearray((root / "SegmentationClass/a.png").read_bytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    for folder, name in (("SegmentationClass", "a.png"), ("JPEGImages", "a.jpg")):
        (root / folder / name).write_bytes(bytes(header))
    dataset = VocDataset(root)
    with refused("SegmentationClass/a.png"):
        dataset.mask("a")
    with refused("JPEGImages/a.jpg"):
        dataset.image_size("a")


def test_an_unknown_class_in_the_xml_is_refused(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(annotation("cat", "unicorn"))
    with refused("Annotations/a.xml", "unknown class 'unicorn'", "add it to classes.txt", "person"):
        VocDataset(root).sample("a")


def test_broken_xml_is_refused(root: Path) -> None:
    (root / "Annotations/a.xml").write_text(annotation("cat")[:-5])
    with refused("Annotations/a.xml", "not well-formed XML", "replace it"):
        VocDataset(root).sample("a")


def test_an_object_without_a_name_is_refused_rather_than_skipped(root: Path) -> None:
    text = annotation("cat").replace("</annotation>", "<object></object></annotation>")
    (root / "Annotations/a.xml").write_text(text)
    with refused("Annotations/a.xml"):
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
    with refused("Segmentation/empty.txt", "the split is empty", "one image id a line"):
        VocDataset(root).image_ids("empty")


def test_an_unknown_split_is_refused_and_the_known_ones_are_named(root: Path) -> None:
    with refused("Segmentation/test.txt", "no such split", "there are: train"):
        VocDataset(root).image_ids("test")
    shutil.rmtree(root / "ImageSets")
    with refused("Segmentation/train.txt", "there are: none"):
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
    with refused("Segmentation/train.txt", f"{image_id!r} is not an image id", "use letters"):
        VocDataset(root).image_ids("train")


@pytest.mark.parametrize(
    "name",
    ["<script>", "=cmd()", "\\input", "a/b", "background", '"', "'", "`ls`", "$x", "a&b", "a\x00b",
     "@SUM(A1)", "+1+cmd|x", "-2+3", "[/bold]", "[red]x", "{{x}}", "cat|dog", "\u202etac",
     "x" * 81],
)  # fmt: skip
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
        ("cat\ndog\n cat\n", "listed twice: cat; keep each name once"),
    ],
)
def test_an_unusable_class_list_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ClassListError, match=re.escape(fault)):
        read_class_list(tmp_path)


def test_a_class_list_of_254_names_fills_the_mask_values(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(f"c{i}" for i in range(254)))
    assert len(read_class_list(tmp_path)) == 254


# Fuzz: whatever a file holds, nothing but the reader's own errors comes out

TEXT = st.text(st.characters(codec="utf-8"), max_size=80).map(str.encode)
XML = st.builds(
    lambda head, names, tail: (head + annotation(*names) + tail).encode(),
    st.sampled_from(["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="latin-1"?>']),
    st.lists(st.sampled_from([*VOC_CLASSES, "", "x", "&amp;", "&x;", "<b/>", "\x00"]), max_size=4),
    st.sampled_from(["", "\n", "<!-- -->", "</annotation>"]),
)


@fuzz
@given(st.binary(max_size=80) | TEXT | XML)
@example(b'<?xml version="1.0" encoding="klingon"?><a/>')
@example(b"\xff\xfe<\x00a\x00")
def test_whatever_an_annotation_holds_it_is_read_or_refused(root: Path, content: bytes) -> None:
    (root / "Annotations/a.xml").write_bytes(content)
    sample, refusal = value_or_refusal(lambda: VocDataset(root).sample("a"))
    if sample is None:
        assert "Annotations/a.xml" in refusal
    else:
        assert sample.labels
        assert all(VOC_CLASSES[k].encode() in content for k in sample.labels)


@fuzz
@given(st.binary(max_size=60) | TEXT)
@example(b"2007_000032\n\xe9t\xe9\n")
@example("\ufeff2007_000032\n".encode())
def test_whatever_a_split_holds_it_is_read_or_refused(root: Path, content: bytes) -> None:
    (root / "ImageSets/Segmentation/train.txt").write_bytes(content)
    ids, refusal = value_or_refusal(lambda: VocDataset(root).image_ids("train"))
    if ids is None:
        assert "Segmentation/train.txt" in refusal
    else:
        assert ids == content.decode().split()
        assert all(Path(image_id).name == image_id for image_id in ids)


@fuzz
@given(st.binary(max_size=60) | TEXT)
@example(b"caf\xe9\n")
def test_whatever_a_class_list_holds_it_is_read_or_refused(root: Path, content: bytes) -> None:
    (root / "classes.txt").write_bytes(content)
    names, refusal = value_or_refusal(lambda: VocDataset(root).classes)
    if names is None:
        assert "classes.txt" in refusal
    else:
        assert names
        assert len(set(names)) == len(names)
        assert all(name.isprintable() and name.strip() == name != "" for name in names)
