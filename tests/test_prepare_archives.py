"""Archives that nobody vouches for: chosen files come out, anything unsafe refuses the whole."""

import gzip
import io
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.progress import Progress

from wsss.data.archives import ArchiveError, Limits, extract, require_space
from wsss.data.voc import DataError

Members = list[tuple[tarfile.TarInfo, bytes]]


def file(name: str, content: bytes = b"abc") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def other(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def pack(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return path


def take(archive: Path, folder: Path, limits: Limits | None = None) -> set[str]:
    """Extract what lies in data/, without data/."""
    folder.mkdir(exist_ok=True)
    with Progress(disable=True) as progress:
        return extract(
            archive, folder, lambda name: name[5:] if name.startswith("data/") else None,
            progress=progress, limits=limits,
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_chosen_files_come_out_at_their_place_and_others_do_not(tmp_path: Path, mode: str) -> None:
    members = [
        other("data", tarfile.DIRTYPE), other("data/cls", tarfile.DIRTYPE),
        file("data/cls/a.mat", b"first"), file("code/run.sh"), file("data/b.txt", b""),
    ]  # fmt: skip
    written = take(pack(tmp_path / "a.tar", members, mode), tmp_path / "out")
    assert written == {"cls/a.mat", "b.txt"}
    found = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert found == {"cls/a.mat": b"first", "b.txt": b""}


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (file("../evil"), "leads out of the archive"),
        (file("data/../../evil"), "leads out of the archive"),
        (file("code/../../evil"), "leads out of the archive"),  # not even wanted
        (file("/tmp/evil"), "leads out of the archive"),
        (other("data/link", tarfile.SYMTYPE, "/etc/passwd"), "absolute"),
        (other("code/link", tarfile.SYMTYPE, "../../etc/passwd"), "outside the destination"),
        (other("data/link", tarfile.LNKTYPE, "../../etc/passwd"), "outside the destination"),
        (other("data/link", tarfile.SYMTYPE, "a.txt"), "is a link, not a file"),
        (other("data/link", tarfile.LNKTYPE, "data/a.txt"), "is a link, not a file"),
        (other("data/null", tarfile.CHRTYPE), "special file"),
        (other("code/disk", tarfile.BLKTYPE), "special file"),
        (other("code/pipe", tarfile.FIFOTYPE), "special file"),
    ],
)
def test_an_unsafe_member_refuses_the_archive(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    archive = pack(tmp_path / "a.tar", [member, file("data/z.txt")])
    with pytest.raises(ArchiveError) as caught:
        take(archive, tmp_path / "out")
    told = str(caught.value)
    assert str(archive) in told
    assert member[0].name.lstrip("/") in told
    assert reason in told
    assert "get it from a place you trust" in told
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [archive]


def test_a_link_first_and_a_file_through_it_second_writes_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [other("data/x", tarfile.SYMTYPE, str(outside)), file("data/x/evil")]
    with pytest.raises(ArchiveError):
        take(pack(tmp_path / "a.tar", members), tmp_path / "out")
    assert list(outside.iterdir()) == []


def test_set_user_id_and_write_permission_for_all_are_dropped(tmp_path: Path) -> None:
    member, content = file("data/a.sh")
    member.mode = 0o6777
    take(pack(tmp_path / "a.tar", [(member, content)]), tmp_path / "out")
    assert (tmp_path / "out/a.sh").stat().st_mode & 0o6022 == 0


# Bombs


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", [file(f"code/{n}") for n in range(4)])
    assert take(archive, tmp_path / "out", Limits(members=4)) == set()
    with pytest.raises(ArchiveError, match="over 3 members"):
        take(archive, tmp_path / "out", Limits(members=3))


def test_too_many_bytes_are_refused_even_in_files_that_are_not_wanted(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", [file("code/a", b"1" * 60), file("code/b", b"1" * 60)])
    assert take(archive, tmp_path / "out", Limits(total_bytes=120)) == set()
    with pytest.raises(ArchiveError, match=r"119 bytes at 'code/b'"):
        take(archive, tmp_path / "out", Limits(total_bytes=119))


def test_a_wanted_file_that_is_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", [file("data/a", b"1" * 60)])
    with pytest.raises(ArchiveError, match="'data/a' has 60 bytes, allowed are 59"):
        take(archive, tmp_path / "out", Limits(member_bytes=59))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_small_file_that_claims_a_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    member = tarfile.TarInfo("code/zeros")
    member.size = 1 << 40
    header = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header + bytes(1 << 20)))
    with pytest.raises(ArchiveError, match="8,589,934,592 bytes at 'code/zeros'"):
        take(tmp_path / "a.tgz", tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, 2 << 20
    content = member.tobuf(tarfile.GNU_FORMAT) + b"a" * (2 << 20)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(content + bytes(1024)))
    with pytest.raises(ArchiveError, match="a header of 2,097,152 bytes"):
        take(tmp_path / "a.tgz", tmp_path / "out")


# Damage


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_archive_is_refused(tmp_path: Path, mode: str) -> None:
    whole = pack(tmp_path / "a.tar", [file("data/a", bytes(range(256)) * 40)], mode).read_bytes()
    for length in (len(whole) // 2, 100, 1):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match=r"a\.tar: not a whole \.tar or \.tar\.gz"):
            take(tmp_path / "a.tar", tmp_path / "out")


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [file("data/a"), file("data/b")])
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 1  # in the checksum of the second header
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="damaged after 1 members"):
        take(path, tmp_path / "out")


def test_something_else_than_a_tar_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"<html>404</html>" * 100, gzip.compress(b"text" * 1000)):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(ArchiveError, match="not a whole"):
            take(tmp_path / "a.tar", tmp_path / "out")


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", [file("data/a"), file("data/a", b"other")])
    with pytest.raises(ArchiveError, match="a is there twice"):
        take(archive, tmp_path / "out")


def test_room_on_the_disk_is_asked_for_with_something_to_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_067_108_864))
    require_space(tmp_path, 2_000_000_000, "the archive")
    with pytest.raises(
        DataError, match=r"the archive needs 2\.07 GB, 2\.07 GB are free; make room"
    ):
        require_space(tmp_path, 2_000_000_001, "the archive")
