"""Each fault of a data set is told with its file and a remedy, and what is told works."""

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import ESCAPE, refusal
from made_up.voc_tree import annotation, encoded, voc_tree
from PIL import Image

from wsss.data.check import check_data
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset

LIST, PICTURE = "ImageSets/Segmentation/train.txt", "JPEGImages/b.jpg"
XML, MASK, CLASSES = "Annotations/b.xml", "SegmentationClass/b.png", "classes.txt"
BLANK = np.ones((4, 6), np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, a and b, of one class, cup."""
    names = {"a": ["cup"], "b": ["cup"]}
    masks = dict.fromkeys("ab", BLANK)
    return voc_tree(tmp_path, masks, {"train": "ab"}, names=names, classes=["cup"])


def problem_of(root: Path) -> str:
    """Return the problems that the data set has, one per line."""
    try:
        report = check_data(VocDataset(root), ["train"], scored=["train"])
    except DataError as error:
        return str(error)
    return "\n".join(report.problems)


def mask(values: Any = BLANK, form: str = "PNG") -> bytes:
    return encoded(Image.fromarray(values), form)


def gigantic() -> bytes:
    """A header of 60,000 x 60,000 pixels: Pillow's own error for it is no OSError."""
    data = bytearray(mask())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def entity(text: str) -> str:
    return f"<!DOCTYPE a [<!ENTITY x {text}>]>{annotation('&x;')}"


NO_ID = (
    *("../x", "/etc/passwd", "a/b", ".hidden", "a\\b", "-rf", "ä", "\x00", "x/a.jpg"),
    *("/x/JPEGImages/cam1/x.jpg", "photo (1)", "a cat dog", "a 1", "a -1 0.0", "a,1,0"),
    "/JPEGImages/a.jpg /SegmentationClass/b.png",
)
NO_NAME = (
    *("<script>", "=cmd()", "\\input", "a/b", '"', "'", "`ls`", "$x", "a&b", "a\x00b", "\u202etac"),
    *("@SUM(A1)", "+1+cmd|x", "-2+3", "[/bold]", "[red]x", "{{x}}", "cat|dog", "x" * 81),
)
NO_CLASS = ("_background_", "0: Background", "BG", "Void", "ignore")
REFUSED: list[tuple[str, str | bytes, str]] = [
    *((LIST, f"a\n{line}\n", f"{line!r} is no image id; write one alone per") for line in NO_ID),
    (LIST, "a\nb\nb.jpg\n", "keep it once"),
    (LIST, "\n", "write one image id per line"),
    (LIST, "a\n".encode("utf-16"), "UTF-16 text, not UTF-8 text; save it as UTF-8"),
    (LIST, b"\xe4\n", "not as Latin-1"),
    *((CLASSES, f"cup\n{name}\n", f"class name {name!r} is not allowed") for name in NO_NAME),
    *((CLASSES, f"{name}\ncup\n", f"'{name}' is no class, as") for name in NO_CLASS),
    *((CLASSES, f"cup\nx\n{name}\n", f"'cup' and '{name}' differ") for name in ("cup", "Cup")),
    *((CLASSES, text, "classes; write 1 to 254 names") for text in ("", "c\n" * 255)),
    (CLASSES, b"a" * (2**20 + 1), "over 1,048,576 bytes"),
    (XML, annotation("background"), "'background'; correct it, remove the object (as of backg"),
    (XML, annotation("x" * 900_000), "unknown class"),
    (XML, annotation(ESCAPE[1:4]), "unknown class"),
    (XML, annotation("\n "), "an object without one name"),
    (XML, annotation("cup</name><name>cup"), "an object without one name"),
    *((XML, entity(text), "DOCTYPE") for text in ('"cup"', 'SYSTEM "file:///etc/passwd"')),
    (XML, '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>', "DOCTYPE"),
    (XML, '<?xml version="1.0" encoding="klingon"?><a/>', "unknown encoding: klingon"),
    (XML, "<annotation>", "not well-formed XML"),
    (XML, "<a>" * 300_000 + "</a>" * 300_000, "no class present"),
    (XML, f"<a>{' ' * (5 << 20)}</a>", "over 4,194,304 bytes"),
    (PICTURE, "<html>", "replace the file"),
    (MASK, mask(form="EPS"), "cannot be decoded as PNG"),  # Pillow would start Ghostscript
    (MASK, gigantic(), "over 178,956,970 pixels; scale it down"),
    (MASK, mask()[:45], "cannot be decoded"),
    (MASK, mask(form="JPEG"), "cannot be decoded as PNG"),
    (MASK, mask(np.dstack([BLANK] * 3)), "save class numbers as a palette or 8-bit grey"),
    (MASK, mask(BLANK * 2), "allowed are 0..1 and 255"),
    (MASK, mask(BLANK * 255), "mask are none, those of its XML cup; correct one of"),
    *((MASK, mask(odd), "at that size, turned alike") for odd in (BLANK.T, BLANK[:2])),
]


@pytest.mark.parametrize(("rel", "content", "told"), REFUSED)
def test_other_content_is_refused_by_file(
    root: Path, rel: str, content: str | bytes, told: str
) -> None:
    assert problem_of(root) == ""
    (root / rel).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = problem_of(root)
    assert found.startswith(f"{root / rel}: ")
    assert told in found
    assert "\n" not in found


Change = Callable[[Path], object]


def write(rel: str, content: str) -> Change:
    return lambda root: (root / rel).write_text(content)


def moved(rel: str, to: str) -> Change:
    def move(root: Path) -> None:
        (root / to).parent.mkdir(exist_ok=True)
        (root / rel).rename(root / to)

    return move


def removed(*rels: str) -> Change:
    return lambda root: [(root / rel).unlink() for rel in rels]


def copied(rel: str, to: str) -> Change:
    return lambda root: shutil.copy(root / rel, root / to)


def binary(root: Path) -> None:
    """Give b a mask of 0 and 255 and no XML."""
    (root / XML).unlink()
    (root / MASK).write_bytes(mask(BLANK * 255))


ONLY_A, TWICE, OTHER_MASKS = write(LIST, "a\n"), "JPEGImages/b.PNG", "SegmentationClassPNG"
ELSEWHERE = (
    *((LIST, f"ImageSets/{to}/train.txt") for to in (".", "Main")),
    *((CLASSES, name) for name in ("class_names.txt", "labelmap.txt", "Classes.txt", "obj.names")),
)


@pytest.mark.parametrize(
    ("broken", "told", "mended"),
    [
        *((moved(rel, to), f"there is {Path(to)}", moved(to, rel)) for rel, to in ELSEWHERE),
        (
            moved("SegmentationClass", OTHER_MASKS),
            f"there is {OTHER_MASKS}/a.png",
            moved(OTHER_MASKS, "SegmentationClass"),
        ),
        (moved(MASK, "SegmentationClass/b.npy"), "no file, but b.npy", ONLY_A),
        (write(LIST, "a\n/x/b.jpg\n"), "JPEGImages/<id>.jpg", write(LIST, "a\nJPEGImages/b.jpg")),
        (write(LIST, "a\nB\n"), "missing (no file, but b.jpg)", write(LIST, "a\nb\n")),
        (removed(PICTURE), "remove the image from its splits", ONLY_A),
        (copied(PICTURE, TWICE), "keep one of them", removed(TWICE)),
        (write(XML, "<annotation/>"), "remove the image from its splits", ONLY_A),
        (removed(XML, MASK), "no mask here", ONLY_A),
        (removed(MASK), "add one as PNG", copied("SegmentationClass/a.png", MASK)),
        (
            binary,
            "b.png: no class present, and an image needs at least one; write class numbers",
            copied("SegmentationClass/a.png", MASK),
        ),
    ],
)
def test_a_data_set_is_whole_once_it_is_mended_as_told(
    root: Path, broken: Change, told: str, mended: Change
) -> None:
    broken(root)
    assert told in problem_of(root)
    mended(root)
    assert problem_of(root) == ""


def test_the_masks_of_the_supervised_bound_are_found_once_they_lie_as_told(root: Path) -> None:
    dataset, own = VocDataset(root), root / MASK
    own.rename(root / "away.png")
    with pytest.raises(DataError, match=r"1 of 2 images have no mask, first .*; add .*/b\.png"):
        dataset.mask_paths(["a", "b"])
    (root / "away.png").rename(own)
    assert dataset.mask_paths(["a", "b"]) == [root / "SegmentationClass/a.png", own]


def test_what_may_not_be_intended_is_noted(root: Path) -> None:
    def notes() -> list[str]:
        return check_data(VocDataset(root), ["train"], scored=["train"]).notes

    first, second = notes()
    assert first.startswith("in every image: cup; CAMs do not find such a class")
    assert second == "the same picture under several ids: a = b"
    Image.new("RGB", (6, 4), "red").save(root / PICTURE)
    values = BLANK * 255
    values[0, 0] = 1
    for name in "ab":
        (root / f"SegmentationClass/{name}.png").write_bytes(mask(values))
    assert notes()[1].startswith("more than half of the pixels of masks are 255")


PLACED: dict[str, Change] = {
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


@pytest.mark.parametrize("split", ["../../secret", "/etc/passwd", "a\x00b", "x" * 300, "", ESCAPE])
def test_the_name_of_a_split_cannot_lead_out_of_its_folder(root: Path, split: str) -> None:
    (root / "secret.txt").write_text("secret\n")  # would be read as ImageSets/.../../../secret.txt
    message = refusal(lambda: VocDataset(root).image_ids(split), DataError)
    assert "is no valid name of a split" in message
