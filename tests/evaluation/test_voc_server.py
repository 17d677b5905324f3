"""The evaluation server's archive: written alike each time, and every broken rule is named."""

import io
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.pictures.mask import write_label_png
from wsss.evaluation.voc_server import ServerTarError, check_server_tar, write_server_tar

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
SIZES = {"2008_000006": (40, 30), "2008_000011": (25, 50), "2012_004330": (33, 33)}
IDS = list(SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "predictions"
    for index, (name, (width, height)) in enumerate(SIZES.items()):
        label = np.random.default_rng(index).integers(0, 21, (height, width), dtype=np.uint8)
        write_label_png(folder / f"{name}.png", label)
    (folder / "not_of_the_split.png").write_bytes(b"")
    return folder


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    write_server_tar(folder, IDS, tmp_path / "results.tar")
    return tmp_path / "results.tar"


def png(label: np.ndarray, mode: str = "P", palette: list[int] | None = None) -> bytes:
    image = Image.fromarray(label.astype(np.uint8))
    if mode == "P":
        image.putpalette(palette or _voc_palette())
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _voc_palette() -> list[int]:
    """VOC's colours as the development kit defines them, bit by bit, apart from our own code."""
    return [
        sum((label >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3))
        for label in range(256)
        for channel in range(3)
    ]


def rewrite(
    archive: Path, change: Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]
) -> None:
    """Write the archive anew, its first member replaced by what `change` returns, if anything."""
    with tarfile.open(archive) as old:
        members = [(m, (old.extractfile(m) or io.BytesIO()).read()) for m in old.getmembers()]
    first = change(*members[0])
    with tarfile.open(archive, "w") as new:
        for member, data in ([first] if first else []) + members[1:]:
            member.size = len(data) if member.isreg() else member.size
            new.addfile(member, io.BytesIO(data))


def test_the_archive_holds_the_split_where_the_server_looks(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        assert tar.getnames() == [f"{FOLDER}/{name}.png" for name in IDS]
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
            assert member.mode == 0o644
            file = tar.extractfile(member)
            assert file.read() == (folder / Path(member.name).name).read_bytes()
    check_server_tar(archive, IDS, SIZES)


def test_equal_files_give_an_equal_archive(archive: Path, folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes())  # a new time on disk
    write_server_tar(folder, IDS[::-1], tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("other", ["", "results/VOC2012/Main"])
def test_folders_on_the_way_are_allowed_and_no_others(
    folder: Path, tmp_path: Path, other: str
) -> None:
    root = tmp_path / FOLDER  # as `tar cf results.tar results` writes them
    root.mkdir(parents=True)
    (tmp_path / other).mkdir(exist_ok=True)
    for name in IDS:
        (root / f"{name}.png").write_bytes((folder / f"{name}.png").read_bytes())
    with tarfile.open(tmp_path / "by_hand.tar", "w") as tar:
        tar.add(tmp_path / "results", "results")
        assert sum(member.isdir() for member in tar.getmembers()) == (5 if other else 4)
    refused = pytest.raises(ServerTarError, match=f"'{other}' is no image of the list")
    with refused if other else nullcontext():
        check_server_tar(tmp_path / "by_hand.tar", IDS, SIZES)


def test_a_missing_prediction_is_named_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    (folder / f"{IDS[1]}.png").unlink()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ServerTarError, match=rf"1 of 3 .* missing, first {IDS[1]}\.png; predict"):
        write_server_tar(folder, IDS, tmp_path / "new.tar")
    with pytest.raises(ServerTarError, match="no image ids"):
        write_server_tar(folder, [], tmp_path / "new.tar")
    assert sorted(tmp_path.iterdir()) == before


LABEL = np.arange(40 * 30).reshape(30, 40) % 21


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(LABEL), None),
        (png(LABEL, palette=_voc_palette()[:63]), None),
        (png(LABEL, mode="L"), "has mode L, the server takes P"),
        (png(LABEL, mode="RGB"), "has mode RGB"),
        (png(np.where(LABEL == 20, 21, LABEL)), r"holds value 21, labels are 0\.\.20"),
        (png(np.where(LABEL == 20, 255, LABEL)), "holds value 255"),
        (png(LABEL.T), "has 30 x 40 pixels, its image 40 x 30"),
        (png(LABEL, palette=[0, 0, 0, 255, 0, 0] * 128), "another palette than VOC's"),
        (png(LABEL, palette=_voc_palette()[:30]), "another palette than VOC's"),
        (b"GIF89a not a png", "is no PNG"),
        (png(LABEL)[:200], "is no PNG"),
        (b"", "is no PNG"),
        (png(LABEL) + bytes(10**5), "bytes, a label map at most"),
    ],
)
def test_a_prediction_the_server_would_refuse_is_named_with_its_rule(
    archive: Path, data: bytes, message: str | None
) -> None:
    rewrite(archive, lambda member, _: (member, data))
    if message is None:
        check_server_tar(archive, IDS, SIZES)
        return
    with pytest.raises(ServerTarError, match=rf"'{FOLDER}/{IDS[0]}\.png' .*{message}.*; "):
        check_server_tar(archive, IDS, SIZES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{FOLDER}/2008_999999.png", "is no image of the list"),
        (f"../{FOLDER}/{IDS[0]}.png", "is no image of the list"),
        (f"/{FOLDER}/{IDS[0]}.png", "is no image of the list"),
        (f"{IDS[0]}.png", "is no image of the list"),
        (f"{FOLDER}/{IDS[1]}.png", "occurs twice"),
    ],
)
def test_a_member_that_does_not_belong_there_is_named(
    archive: Path, name: str, message: str
) -> None:
    def rename(member: tarfile.TarInfo, _: bytes) -> tuple[tarfile.TarInfo, bytes]:
        member.name = name
        return member, png(np.zeros((50, 25)))  # of the second image's size

    rewrite(archive, rename)
    with pytest.raises(ServerTarError, match=message):
        check_server_tar(archive, IDS, SIZES)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_and_special_files_are_refused(archive: Path, kind: bytes) -> None:
    def link(member: tarfile.TarInfo, _: bytes) -> tuple[tarfile.TarInfo, bytes]:
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0
        return member, b""

    rewrite(archive, link)
    with pytest.raises(ServerTarError, match="is no plain file; store it as a regular file"):
        check_server_tar(archive, IDS, SIZES)


def test_a_png_that_promises_a_huge_picture_is_refused_by_its_header(archive: Path) -> None:
    huge = bytearray(png(LABEL))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height in the header
    rewrite(archive, lambda member, _: (member, bytes(huge)))
    with pytest.raises(ServerTarError, match=rf"{IDS[0]}\.png' (has 60000 x 60000|is no PNG)"):
        check_server_tar(archive, IDS, SIZES)


def test_an_absent_image_is_named(archive: Path) -> None:
    rewrite(archive, lambda _member, _data: None)
    with pytest.raises(ServerTarError, match=rf"{IDS[0]}\.png' is missing, with 1 of 3 images"):
        check_server_tar(archive, IDS, SIZES)


@pytest.mark.parametrize("end", [0, 100, 700, 1600])
def test_a_file_that_is_no_whole_tar_is_refused(archive: Path, end: int) -> None:
    archive.write_bytes(archive.read_bytes()[:end])
    with pytest.raises(ServerTarError, match=r"cannot be read as an uncompressed tar|is missing"):
        check_server_tar(archive, IDS, SIZES)


def test_a_compressed_tar_is_refused_unread(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz"):
        pass
    with pytest.raises(ServerTarError, match="cannot be read as an uncompressed tar"):
        check_server_tar(tmp_path / "a.tgz", IDS, SIZES)
    with pytest.raises(ServerTarError, match="cannot be read as an uncompressed tar"):
        check_server_tar(tmp_path / "absent.tar", IDS, SIZES)
