"""Each fault of a data set is told with its file and a remedy, and what is told works."""

import io
import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import ESCAPE, refusal
from PIL import Image

from wsss.data.check import check_data
from wsss.data.classes import ClassListError
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset

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


LISTED, NAMED = write(LIST, "a\nb\n"), write(CLASSES, "cup\n")
CUP, MASKED = write(XML, ANNOTATION.format("cup")), masked(BLANK)
MAIN, ABOVE = "ImageSets/Main/train.txt", "ImageSets/train.txt"
OTHER_MASKS = "SegmentationClassPNG"


def binary(root: Path) -> None:
    """Give b a mask of 0 and 255 and no XML."""
    masked(BLANK * 255)(root)
    removed(XML)(root)


def deeper(root: Path) -> None:
    """Put the masks into a folder below their own."""
    moved("SegmentationClass", "all")(root)
    moved("all", "SegmentationClass/all")(root)


def raised(root: Path) -> None:
    for path in (root / "SegmentationClass/all").iterdir():
        path.rename(root / "SegmentationClass" / path.name)


@pytest.mark.parametrize(
    ("broken", "told", "mended"),
    [
        (write(CLASSES, "_background_\ncup\n"), "remove the line", NAMED),
        (write(CLASSES, "cup\ncup\n"), "keep each name once", NAMED),
        (write(CLASSES, "1 cup\n"), "write the names alone", NAMED),
        (write(CLASSES, ""), "write 1 to 254 names, one per line", NAMED),
        (renamed(CLASSES, "obj.names"), "there is obj.names; write its names there", NAMED),
        (write(LIST, "a 1 0\nb 0 1\n"), "keep the id alone, one per line", LISTED),
        (write(LIST, "a\nb\nb.jpg\n"), "keep it once", LISTED),
        (write(LIST, "\n"), "write one image id per line", LISTED),
        (write(LIST, "a\n/x/b.jpg\n"), "JPEGImages/<id>.jpg", write(LIST, "a\nJPEGImages/b.jpg")),
        (write(LIST, "a\nb\n", "utf-16"), "save it as UTF-8", LISTED),
        (renamed(LIST, "all.txt"), "there are: all; write this one", LISTED),
        *((moved(LIST, to), f"there is {to}", moved(to, LIST)) for to in (MAIN, ABOVE)),
        (
            moved("SegmentationClass", OTHER_MASKS),
            f"there is {OTHER_MASKS}/a.png",
            moved(OTHER_MASKS, "SegmentationClass"),
        ),
        (write(LIST, "a\nB\n"), "missing (no file, but b.jpg)", LISTED),
        (removed(PICTURE), "remove the image from its splits", write(LIST, "a\n")),
        (copied(PICTURE, "b.PNG"), "keep one of them", removed("JPEGImages/b.PNG")),
        (write(PICTURE, "<html>"), "replace the file", copied("JPEGImages/a.jpg", "b.jpg")),
        (write(XML, ANNOTATION.format("Cup")), "write cup (known", CUP),
        (write(XML, ANNOTATION.format("Background")), "remove the object", CUP),
        (write(XML, '<?xml version="1.0" encoding="gb2312"?><a/>'), "save it as UTF-8", CUP),
        (write(XML, "<annotation/>"), "remove the image from its splits", write(LIST, "a\n")),
        (
            binary,
            "b.png: no class present (only 0 or 255), and an image needs at least one; write",
            MASKED,
        ),
        (write(XML, "<annotation>"), "replace it", CUP),
        (removed(MASK), "add one as PNG", MASKED),
        (renamed(MASK, "b.jpg"), "no file, but b.jpg", renamed("SegmentationClass/b.jpg", "b.png")),
        (deeper, "there is SegmentationClass/all/a.png; move all one folder up", raised),
        (masked(BLANK * 2), "allowed are 0..1 and 255", MASKED),
        (masked(BLANK * 255), "write class numbers, where cup is 1", MASKED),
        (masked(BLANK.T), "turn the mask", MASKED),
        (masked(BLANK[:2]), "save it at its image's size", MASKED),
        (masked(BLANK, kind="JPEG"), "not PNG); replace the file", MASKED),
        (masked(np.dstack([BLANK] * 3)), "save class numbers as a palette or 8-bit grey", MASKED),
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


def test_what_may_not_be_intended_is_noted(root: Path) -> None:
    def notes() -> list[str]:
        return check_data(VocDataset(root), ["train"], scored=["train"]).notes

    first, second = notes()
    assert first.startswith("in every image: cup; CAMs do not find such a class")
    assert second == "the same picture under several ids: a = b"
    Image.new("RGB", (6, 4), "red").save(root / PICTURE)
    for value, expected in ((255, "more than half of the pixels of masks are 255"), (9, "")):
        for name in "ab":
            values = BLANK * value
            values[0, 0] = 1
            save_mask(root / f"SegmentationClass/{name}.png", values)
        assert "".join(notes()[1:]).startswith(expected)  # not that there are no masks


# Any other content is refused in one line that begins with the file


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, kind)
    return buffer.getvalue()


def gigantic() -> bytes:
    """A header of 60,000 x 60,000 pixels: Pillow's own error for it is no OSError."""
    data = bytearray(encoded("PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def entity(text: str) -> str:
    return f"<!DOCTYPE a [<!ENTITY x {text}>]>{ANNOTATION.format('&x;')}"


NO_ID = ("../x", "/etc/passwd", "a/b", ".hidden", "a\\b", "-rf", "ä", "\x00")
NO_NAME = (
    *("<script>", "=cmd()", "\\input", "a/b", '"', "'", "`ls`", "$x", "a&b", "a\x00b", "\u202etac"),
    *("@SUM(A1)", "+1+cmd|x", "-2+3", "[/bold]", "[red]x", "{{x}}", "cat|dog", "x" * 81),
)
LABELLED = "is an id with labels after it"
REFUSED: list[tuple[str, str | bytes, str]] = [
    *((LIST, f"a\n{wrong}\n", f"{wrong!r} is ") for wrong in NO_ID),
    (LIST, "x/a.jpg", "a path outside JPEGImages"),
    *((LIST, line, f"'{line}' {LABELLED}") for line in ("a 1", "a -1 0.0", "a,1,0")),
    (LIST, "a cat dog", "'a cat dog' is more than an id"),
    (LIST, "/JPEGImages/a.jpg /SegmentationClass/b.png", "names two images"),
    (LIST, b"\xe4\n", "not as Latin-1"),
    *((CLASSES, f"cup\n{name}\n", f"class name {name!r} is not allowed") for name in NO_NAME),
    *((CLASSES, f"{name}\ncup\n", f"'{name}' is no class") for name in ("BG", "Void", "ignore")),
    (CLASSES, "\n".join(f"c{n}" for n in range(255)), "255 classes; write 1 to 254 names"),
    (CLASSES, "cup\ndog\nCup\n", "'cup' and 'Cup' differ only in upper and lower case"),
    (CLASSES, b"a" * (2**20 + 1), "over 1,048,576 bytes"),
    (CLASSES, b"caf\xe9\n", "not as Latin-1"),
    (XML, ANNOTATION.format("mug"), "unknown class 'mug'; add it to classes.txt"),
    (XML, ANNOTATION.format("\n "), "an object without a name"),
    (XML, ANNOTATION.format("cup</name><name>cup"), "an object of several names"),
    *((XML, entity(text), "DOCTYPE") for text in ('"cup"', 'SYSTEM "file:///etc/passwd"')),
    (XML, '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>', "DOCTYPE"),
    (XML, ANNOTATION.format("x" * 900_000), "unknown class"),
    (XML, ANNOTATION.format(ESCAPE[1:4]), "unknown class"),
    (XML, '<?xml version="1.0" encoding="klingon"?><a/>', "unknown encoding: klingon"),
    (XML, "<a>" * 300_000 + "</a>" * 300_000, "no class present"),
    (XML, f"<a>{' ' * (5 << 20)}</a>", "over 4,194,304 bytes"),
    (MASK, encoded("EPS"), "not PNG"),  # Pillow would start Ghostscript
    (MASK, gigantic(), "over 178,956,970 pixels; scale it down"),
    (MASK, encoded("PNG")[:45], "cannot be decoded"),
]


@pytest.mark.parametrize(("rel", "content", "told"), REFUSED)
def test_other_content_is_refused_by_file(
    root: Path, rel: str, content: str | bytes, told: str
) -> None:
    (root / rel).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = problem_of(root)
    assert found.startswith(f"{root / rel}: ")
    assert told in found
    assert "\n" not in found


PLACED: dict[str, Callable[[Path], object]] = {
    "a pipe, socket or device": os.mkfifo,
    "Is a directory": Path.mkdir,
    "broken link": lambda path: path.symlink_to("nowhere"),
    "socket or device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("told", PLACED)
@pytest.mark.parametrize("rel", [LIST, PICTURE, XML, MASK, CLASSES])
def test_what_is_no_file_is_refused_and_not_waited_for(root: Path, rel: str, told: str) -> None:
    (root / rel).unlink()
    PLACED[told](root / rel)
    found = problem_of(root)
    assert found.startswith(f"{root / rel}: ")
    assert told in found


def test_a_folder_which_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder JPEGImages.*VOCdevkit/VOC2012"):
        VocDataset(tmp_path)


@pytest.mark.parametrize("line", ["cam1/x", "cam1/x.jpg", "/JPEGImages/cam1/x.jpg"])
def test_a_picture_in_a_folder_below_is_refused_with_the_remedy(root: Path, line: str) -> None:
    """CVAT writes names with folders."""
    (root / "JPEGImages/cam1").mkdir()
    (root / LIST).write_text(line)
    assert "in a folder below JPEGImages; move its files up" in problem_of(root)


def test_an_image_with_spaces_in_its_name_is_to_be_renamed(root: Path) -> None:
    (root / LIST).write_text("photo (1)\n")
    (root / "JPEGImages/photo (1).jpg").touch()
    told = problem_of(root)
    assert "'photo (1)' is no valid image id; rename its files" in told
    assert "no spaces" in told


@pytest.mark.parametrize("split", ["../../secret", "/etc/passwd", "a\x00b", "x" * 300, "", ESCAPE])
def test_the_name_of_a_split_cannot_lead_out_of_its_folder(root: Path, split: str) -> None:
    (root / "secret.txt").write_text("secret\n")  # would be read as ImageSets/.../../../secret.txt
    message = refusal(lambda: VocDataset(root).image_ids(split), DataError)
    assert "is no valid name of a split" in message


def test_every_known_list_of_another_tool_is_noticed(root: Path) -> None:
    for name in ("class_names.txt", "labelmap.txt", "Classes.txt", "obj.names"):
        other = (root / CLASSES).rename(root / name)
        assert re.search(rf"classes\.txt: missing, but there is {name}; write", problem_of(root))
        other.rename(root / CLASSES)
