"""From small archives in the original layouts to a data set in VOC layout, and back again."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
from commands import wsss
from filelock import FileLock
from made_up.voc_tree import contents, encoded, palette_mask
from PIL import Image
from rich.progress import Progress
from test_prepare_archives import Host, file, pack
from test_prepare_sbd import save_sbd

from wsss.basics.errors import ForeseenError
from wsss.data.check import check_data
from wsss.data.check_splits import OFFICIAL_SPLITS, OfficialSplit, compare_lists
from wsss.data.classes import VOC_CLASSES
from wsss.data.prepare import assemble as preparation
from wsss.data.prepare.archives import PrepareRequest, Source
from wsss.data.prepare.assemble import Prepared, prepare_voc
from wsss.data.voc import VocDataset

# VOC train 1, 2; val 3, 4. SBD train 2, 3, 5; val 6, 4: it has val's 3 and 4, and 5, 6 are new.
NAMES = [f"2007_00000{n}" for n in range(1, 7)]
A, B, C, D, E, F = NAMES
TRAIN_AUG = [A, B, E, F]
TEST = ["2008_000009"]
LABEL = {name: n for n, name in enumerate(NAMES, start=1)}
"""The class that the mask of each picture holds."""


def mask_of(name: str, *, border: bool) -> np.ndarray:
    mask = np.zeros((5, 7), np.uint8)
    mask[1:4, 2:5] = LABEL[name]
    if border:
        mask[0] = 255
    return mask


def picture() -> bytes:
    return encoded(Image.new("RGB", (7, 5), (90, 80, 70)), "JPEG")


def lines(*names: str) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


class Archives(NamedTuple):
    """Three archives as the organisers pack them, and what is in them."""

    folder: Path
    voc: dict[str, bytes]
    sbd: dict[str, bytes]
    test: dict[str, bytes]

    def pack(self) -> "Archives":
        for name, prefix, files in (
            ("VOC.tar", "VOCdevkit/VOC2012", self.voc),
            ("SBD.tgz", "benchmark_RELEASE/dataset", self.sbd),
            ("TEST.tar", "VOCdevkit/VOC2012", self.test),
        ):
            members = [file(f"{prefix}/{path}", content) for path, content in files.items()]
            pack(self.folder / name, members, "w:gz" if name.endswith("tgz") else "w")
        return self

    def local(self, *steps: str) -> dict[str, Path]:
        files = {"voc": "VOC.tar", "sbd": "SBD.tgz", "test": "TEST.tar"}
        return {step: self.folder / files[step] for step in steps or ("voc", "sbd")}

    def sources(self, url: str = "http://127.0.0.1:9") -> dict[str, Source]:
        return {
            step: Source(path.name, f"{url}/{path.name}", md5(path))
            for step, path in self.local("voc", "sbd", "test").items()
        }


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def archives(tmp_path: Path) -> Archives:
    folder = tmp_path / "archives"
    voc = {f"JPEGImages/{name}.jpg": picture() for name in [*NAMES, "2012_004331"]}
    for name in (A, B, C, D):
        for kind in ("Class", "Object"):
            mask = palette_mask(mask_of(name, border=True))
            voc[f"Segmentation{kind}/{name}.png"] = encoded(mask, "PNG")
        xml = f"<a><object><name>{VOC_CLASSES[LABEL[name] - 1]}</name></object></a>"
        voc[f"Annotations/{name}.xml"] = xml.encode()
    for split, names in {"train": (A, B), "val": (C, D), "trainval": (A, B, C, D)}.items():
        voc[f"ImageSets/Segmentation/{split}.txt"] = lines(*names)
        voc[f"ImageSets/Main/{split}.txt"] = b"another task\n"
    sbd = {"train.txt": lines(B, C, E), "val.txt": lines(F, D)}
    for name in (B, C, D, E, F):
        save_sbd(folder / "one.mat", mask_of(name, border=False))
        sbd[f"cls/{name}.mat"] = (folder / "one.mat").read_bytes()
        sbd[f"inst/{name}.mat"] = b"instances"
    test = {f"JPEGImages/{name}.jpg": picture() for name in [*TEST, "2008_000010"]}
    test["ImageSets/Segmentation/test.txt"] = lines(*TEST)
    test["Annotations/2008_000009.xml"] = b"<annotation/>"
    return Archives(folder, voc, sbd, test).pack()


@pytest.fixture
def host(archives: Archives, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = {path.name: path.read_bytes() for path in archives.folder.glob("*.t*")}
    server = Host(files)
    yield server
    server.close()


SPLITS = {"train": (A, B), "val": (C, D), "train_aug": TRAIN_AUG, "test": TEST}
OFFICIAL = {
    split: OfficialSplit(len(names), hashlib.sha256(lines(*names)).hexdigest())
    for split, names in SPLITS.items()
}


@pytest.fixture(autouse=True)
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists of the small archives stand for the official ones."""
    for split, known in OFFICIAL.items():
        monkeypatch.setitem(OFFICIAL_SPLITS, split, known)


def prepare(
    root: Path,
    archives: Archives,
    /,
    *steps: str,
    url: str = "",
    sources: dict[str, Source] | None = None,
    **request: Any,
) -> Prepared:
    """Prepare from the local archives of the steps (voc and sbd), or from `url` if it is given."""
    local = {} if url else archives.local(*steps)
    with Progress(disable=True) as progress:
        return prepare_voc(
            PrepareRequest(**{"root": root, "archives": local, **request}),
            progress=progress,
            sources=sources or archives.sources(url),
        )


class Break(BaseException):
    """Ends a call anywhere, as Ctrl-C does."""


# What comes out


def test_small_archives_become_a_data_set_of_what_is_needed_without_a_problem(
    tmp_path: Path, archives: Archives
) -> None:
    root = tmp_path / "VOCdevkit/VOC2012"
    result = prepare(root, archives)
    assert (result.done, result.kept) == (["voc", "sbd"], [])
    counts = {"train": 2, "val": 2, "train_aug": 4}
    told = [f"{split}: {count} images, VOC 2012's list" for split, count in counts.items()]
    assert result.describe().splitlines()[:-1] == told
    dataset = VocDataset(root)
    assert dataset.image_ids("train_aug") == TRAIN_AUG
    report = check_data(dataset, dataset.split_names(), scored=["train", "val"])
    compare_lists(report, dataset, dataset.split_names())
    assert (report.problems, set(report.official.values())) == ([], {True})

    found = contents(root)
    masks = {name: f"SegmentationClassAug/{name}.png" for name in NAMES}
    left_out = ("SegmentationObject", "ImageSets/Main")
    wanted = {name: text for name, text in archives.voc.items() if not name.startswith(left_out)}
    wanted |= {masks[name]: wanted[f"SegmentationClass/{name}.png"] for name in (A, B, C, D)}
    made = {masks[E], masks[F], "ImageSets/Segmentation/train_aug.txt"}
    assert found.keys() == wanted.keys() | made
    assert {name: found[name] for name in wanted} == wanted
    for name in (E, F):
        with Image.open(root / masks[name]) as image:
            assert np.array_equal(np.asarray(image), mask_of(name, border=False))
    assert {path.name for path in root.parent.iterdir()} == {".VOC2012.lock", "VOC2012"}


def test_the_test_pictures_are_added_without_their_annotations(
    tmp_path: Path, archives: Archives
) -> None:
    root = tmp_path / "voc"
    prepare(root, archives)
    before = contents(root)
    result = prepare(root, archives, "test")
    assert (result.done, result.kept) == (["test"], ["voc", "sbd"])
    added = contents(root).keys() - before.keys()
    assert added == {f"JPEGImages/{TEST[0]}.jpg", "ImageSets/Segmentation/test.txt"}
    assert "test: 1 image, VOC 2012's list" in result.describe()


def test_archives_come_from_mirrors_in_order_then_the_public_address_and_are_kept(
    tmp_path: Path, archives: Archives, host: Host
) -> None:
    root = tmp_path / "one/voc"
    mirrors = (f"{host.url}/none", f"{host.url}/")
    assert prepare(root, archives, url=host.url, mirrors=mirrors).done == ["voc", "sbd"]
    assert host.requests == ["/none/VOC.tar", "/VOC.tar", "/none/SBD.tgz", "/SBD.tgz"]
    for name in ("VOC.tar", "SBD.tgz"):
        kept = tmp_path / "one/archives" / name
        assert kept.read_bytes() == (archives.folder / name).read_bytes()
    prepare(tmp_path / "two/voc", archives)
    assert contents(root) == contents(tmp_path / "two/voc")
    again = prepare(tmp_path / "one/voc2", archives, url=host.url)
    assert again.done == ["voc", "sbd"]
    assert len(host.requests) == 4  # what is there is only checked
    (tmp_path / "one/archives/VOC.tar").unlink()
    prepare(tmp_path / "one/voc3", archives, url=host.url)
    assert host.requests[4:] == ["/VOC.tar"]


# Again, and after a crash


def test_a_second_call_reads_no_archive_and_changes_nothing(
    tmp_path: Path, archives: Archives
) -> None:
    root = tmp_path / "voc"
    prepare(root, archives)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    for path in archives.local("voc", "sbd").values():
        path.write_bytes(b"")
    with Progress(disable=True) as progress:
        again = prepare_voc(PrepareRequest(root), progress=progress)
    assert (again.done, again.kept) == ([], ["voc", "sbd"])
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("extract", 1),
        ("put_in_place", 1),
        ("extract", 2),
        ("convert_masks", 1),
        ("_prepare_sbd", 1),
    ],
)
def test_a_call_that_breaks_anywhere_is_finished_by_the_next(
    tmp_path: Path,
    archives: Archives,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
    is_done: bool,
) -> None:
    root, whole = tmp_path / "voc", tmp_path / "whole"
    prepare(whole, archives)
    own, breaks = getattr(preparation, name), Mock(side_effect=[None] * (call - 1) + [Break])

    def broken(*arguments: Any, **more: Any) -> None:
        for step in (lambda: own(*arguments, **more), breaks)[:: 1 if is_done else -1]:
            step()

    with monkeypatch.context() as patch:
        patch.setattr(preparation, name, broken)
        with pytest.raises(Break):
            prepare(root, archives)
    assert [p.name for p in tmp_path.rglob("*.part")] == []
    assert not root.exists() or VocDataset(root).image_ids("val") == [C, D]  # whole, or not at all
    prepare(root, archives)
    assert contents(root) == contents(whole)


def test_folders_left_by_a_killed_call_are_no_hindrance(tmp_path: Path, archives: Archives) -> None:
    (tmp_path / ".voc.part/JPEGImages").mkdir(parents=True)
    (tmp_path / ".voc.part/JPEGImages/half.jpg").write_bytes(b"half")
    prepare(tmp_path / "voc", archives)
    assert not (tmp_path / ".voc.part").exists()
    assert not (tmp_path / "voc/JPEGImages/half.jpg").exists()
    (tmp_path / "voc/.sbd.part/cls").mkdir(parents=True)  # killed when the masks were in place
    prepare(tmp_path / "voc", archives)
    assert not (tmp_path / "voc/.sbd.part").exists()


# What is refused


def refused(root: Path, archives: Archives, /, **more: Any) -> str:
    with pytest.raises(ForeseenError) as caught:
        prepare(root, archives, **more)
    assert not list(archives.folder.parent.glob("**/.*.part"))
    return str(caught.value)


def test_lists_other_than_the_official_ones_are_refused(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OFFICIAL_SPLITS, "train", OfficialSplit(1464, "aa623bd2"))
    told = refused(tmp_path / "voc", archives)
    digest = hashlib.sha256(lines(A, B)).hexdigest()
    assert told.startswith(f"train: 2 ids with SHA-256 {digest}; VOC 2012 has 1464 with aa623bd2")
    assert "--allow-partial" in told
    assert not (tmp_path / "voc").exists()


def test_an_archive_with_another_digest_is_refused(tmp_path: Path, archives: Archives) -> None:
    path, root, known = archives.folder / "VOC.tar", tmp_path / "voc", archives.sources()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for name, text, told in (
        ("VOC.tar", "0" * 64, f"sha256 expected {'0' * 64}, found {digest}"),  # its MD5 is right
        ("voc.tar", "0" * 64, "voc.tar: no archive of this name; there are VOC.tar, SBD.tgz, TEST"),
        ("VOC.tar", "abc", "give 64 hex digits"),
    ):
        assert told in refused(root, archives, sha256={name: text})
    path.write_bytes(path.read_bytes() + b"\0")
    told = refused(root, archives, sources=known)
    for part in (str(path), f"expected {known['voc'].md5}", f"found {md5(path)}", "allow-partial"):
        assert part in told
    digest = hashlib.sha256(path.read_bytes()).hexdigest().upper()
    prepare(root, archives, sources=known, allow_partial=True, sha256={"VOC.tar": digest})


@pytest.mark.parametrize(
    ("archive", "file", "told"),
    [
        ("voc", f"JPEGImages/{A}.jpg", f"JPEGImages/{A}.jpg is missing, 1 file in all"),
        ("voc", f"SegmentationClass/{D}.png", f"SegmentationClass/{D}.png is missing"),
        ("voc", "ImageSets/Segmentation/train.txt", "train.txt is missing, 1 file in all"),
        ("voc", f"JPEGImages/{E}.jpg", f"JPEGImages/{E}.jpg: missing; add"),
        ("sbd", f"cls/{E}.mat", f"cls/{E}.mat is missing, 1 file in all"),
        ("sbd", "val.txt", "val.txt is missing, 1 file in all; get the archive again, or another"),
    ],
)
def test_an_archive_with_a_file_too_few_is_refused(
    tmp_path: Path, archives: Archives, archive: str, file: str, told: str
) -> None:
    del getattr(archives, archive)[file]
    assert told in refused(tmp_path / "voc", archives.pack(), allow_partial=True)


def test_two_calls_at_a_time_and_a_drive_without_locks_are_refused(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileLock(tmp_path / ".voc.lock"):
        assert "another `wsss data prepare` is at work" in refused(tmp_path / "voc", archives)

    def refuse(_file: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert "this drive has no locks" in refused(tmp_path / "voc", archives)


def test_a_file_in_the_way_is_refused_and_left(tmp_path: Path, archives: Archives) -> None:
    (root := tmp_path / "voc").mkdir()
    (letter := root / "letter.txt").write_text("dear")
    assert "name an empty folder" in refused(root, archives)
    assert contents(root) == {"letter.txt": b"dear"}
    letter.unlink()
    assert prepare(root, archives).done == ["voc", "sbd"]


@pytest.mark.parametrize(
    ("rel", "told"),
    [
        (f"SegmentationClassAug/{E}.png", "holds other masks; move it away"),
        ("ImageSets/Segmentation/train_aug.txt", "is another list; move it away"),
    ],
)
def test_what_is_made_from_sbd_replaces_nothing_in_a_folder_unpacked_by_hand(
    tmp_path: Path, archives: Archives, rel: str, told: str
) -> None:
    root, files = tmp_path / "voc", {**archives.voc, rel: b"2007_000001\n"}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    message = refused(root, archives)
    assert told in message
    assert contents(root) == files
    Path(message.partition(": ")[0]).rename(tmp_path / "away")
    assert prepare(root, archives).done == ["sbd"]
    assert VocDataset(root).image_ids("train_aug") == TRAIN_AUG


def test_masks_and_list_that_somebody_else_made_are_taken_as_they_are(
    tmp_path: Path, archives: Archives
) -> None:
    root, whole = tmp_path / "voc", tmp_path / "whole"
    prepare(whole, archives)
    shutil.copytree(whole, root)
    (root / f"SegmentationClassAug/{E}.png").write_bytes(b"another opinion")
    before = contents(root)
    assert prepare(root, archives).kept == ["voc", "sbd"]
    assert contents(root) == before


def test_what_cannot_be_prepared_is_refused_before_anything_is_downloaded(
    tmp_path: Path, archives: Archives
) -> None:
    (tmp_path / "file").touch()
    root, known = tmp_path / "voc", archives.sources()
    known["test"] = known["test"]._replace(url=None)
    absent = {"archives": {"sbd": tmp_path / "absent.tgz"}}
    no_test = {"with_test": True, "downloads": tmp_path / "new"}
    for path, request, told in (
        (root, absent, "absent.tgz: no such file"),
        (root, no_test, "TEST.tar: has no public address"),
        (tmp_path / "file", {}, "name an empty folder"),
        (Path("/"), {}, "/: name a folder that is not there yet"),
    ):
        assert told in refused(path, archives, sources=known, **request)


# The command


def test_the_command_prepares_tells_and_refuses(
    tmp_path: Path, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OFFICIAL_SPLITS, "train_aug", OfficialSplit(10582, "d1326bd5"))
    (tmp_path / "voc").mkdir()
    (tmp_path / "link").symlink_to("voc")  # as to a larger disk
    root, local = str(tmp_path / "link"), archives.local()
    paths = ("--voc", str(local["voc"]), "--sbd", str(local["sbd"]))
    words = ["data", "prepare", root, *paths, "--workers", "1"]
    for more, told in (
        ([], "md5 expected 6cd6e144f989b92b3379bac3b3de84fd"),
        (["--sha256", "0" * 64], "expected FILENAME=HEX"),
        (["--with-test", "--allow-partial"], "VOC2012test.tar: has no public address"),
    ):
        refusal = wsss(*words, *more)
        assert refusal.exit_code == 2
        assert told in refusal.stderr
    result = wsss(*words, "--allow-partial")
    assert result.exit_code == 0, result.stderr
    assert "train_aug: 4 images, not VOC 2012's full list" in result.stdout
    assert f"{tmp_path / 'voc'}: prepared voc, sbd; already there: nothing" in result.stdout
