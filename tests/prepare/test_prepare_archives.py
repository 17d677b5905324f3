"""Archives that nobody vouches for: had whole or not at all, and nothing unsafe comes out."""

import errno
import gzip
import hashlib
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fuzzing import refusal
from made_up.voc_tree import contents
from rich.progress import Progress

from wsss.data.errors import DataError
from wsss.data.prepare import archives
from wsss.data.prepare.archives import SPARE_BYTES, download, extract

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
MD5 = {"md5": hashlib.md5(CONTENT).hexdigest()}


class Host(ThreadingHTTPServer):
    """A server on this machine, which behaves always alike.

    `ok` sends the file; `drop` ends the connection after 300,000 bytes; `html` is a page; a number
    is an error.
    """

    def __init__(self, files: dict[str, bytes], behaviour: str | int = "ok") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.behaviour = files, behaviour
        self.requests: list[str] = []
        """Path of every request."""
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        behaviour = self.server.behaviour
        self.server.requests.append(self.path)
        content = self.server.files.get(self.path.removeprefix("/"))
        if content is None or isinstance(behaviour, int):
            self.send_error(behaviour if isinstance(behaviour, int) else 404)
            return
        self.send_response(200)
        kind = "text/html" if behaviour == "html" else "application/x-tar"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(ConnectionError):  # who is answered with a page hangs up
            self.wfile.write(content[: 300_000 if behaviour == "drop" else None])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Host]]:
    """Append servers to have them closed."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    opened: list[Host] = []
    yield opened
    for host in opened:
        host.close()


def serve(hosts: list[Host], behaviour: str | int = "ok", content: bytes = CONTENT) -> Host:
    hosts.append(Host({"a.tar": content}, behaviour))
    return hosts[-1]


def get(folder: Path, *urls: Host | str) -> Path:
    addresses = [f"{url.url}/a.tar" if isinstance(url, Host) else url for url in urls]
    with Progress(disable=True) as progress:
        return download(addresses, folder / "a.tar", MD5, progress=progress)


# Downloads


def test_the_file_comes_whole_from_the_first_address_that_has_it(
    tmp_path: Path, hosts: list[Host]
) -> None:
    dead = serve(hosts)
    hosts.remove(dead)
    dead.close()
    altered = b"!" + CONTENT[1:]
    others = [serve(hosts, behaviour) for behaviour in (404, "html", "drop", 503)]
    faulty = [
        *others,
        serve(hosts, content=altered),
        "ftp://example.org/a.tar",
        "http://[/a.tar",
        dead,
    ]
    with pytest.raises(DataError) as caught:
        get(tmp_path, *faulty)
    lines = str(caught.value).splitlines()  # each address is told with its fault
    assert lines[0] == f"{others[0].url}/a.tar: HTTP Error 404: Not Found"
    assert "a web page instead of the file" in lines[1]
    assert "connection ended after 300,000 of 1,024,000 bytes" in lines[2]
    assert f"md5 expected {MD5['md5']}, found {hashlib.md5(altered).hexdigest()}" in lines[4]
    assert "1,024,000 bytes" in lines[4]
    assert "not an http or https address" in lines[5]
    assert lines[6] == "http://[/a.tar: Invalid IPv6 URL"
    assert lines[8].startswith("a.tar: no address has it; give a local file or a --mirror, or")
    assert f"curl -L -C - -o {tmp_path / 'a.tar'}" in lines[8]
    assert list(tmp_path.iterdir()) == []

    path = get(tmp_path / "new/folder", *faulty, serve(hosts), serve(hosts))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["a.tar"]
    assert [len(host.requests) for host in hosts] == [2, 2, 2, 2, 2, 1, 0]


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = len(CONTENT) + SPARE_BYTES
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(DataError, match=r"a\.tar\.part needs 0\.07 GB, 0\.07 GB are free; make"):
        get(tmp_path, serve(hosts))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
    assert get(tmp_path, *hosts).is_file()


def test_an_address_may_have_any_letters_and_a_full_disk_is_not_its_fault(
    tmp_path: Path, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host({"%C3%BC%20b/a.tar": CONTENT})
    hosts.append(host)
    assert get(tmp_path, f"{host.url}/\u00fc b/a.tar").read_bytes() == CONTENT

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", refuse)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"a\.tar: No space left on device; choose another"):
        get(tmp_path, f"{host.url}/%C3%BC%20b/a.tar", host)
    assert len(host.requests) == 2


# Unpacking

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


def take(archive: Path, folder: Path) -> set[str]:
    """Extract what lies in data/, without data/."""
    folder.mkdir(exist_ok=True)
    with Progress(disable=True) as progress:
        wanted = re.compile(r"data/(.*)")
        return extract(archive, folder, wanted, progress=progress)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_chosen_files_come_out_at_their_place_and_others_do_not(tmp_path: Path, mode: str) -> None:
    members = [
        other("data", tarfile.DIRTYPE),
        other("data/cls", tarfile.DIRTYPE),
        file("data/cls/a.mat", b"first"),
        file("code/run.sh"),
        file("data/b.txt", b""),
    ]
    written = take(pack(tmp_path / "a.tar", members, mode), tmp_path / "out")
    assert written == {"cls/a.mat", "b.txt"}
    assert contents(tmp_path / "out") == {"cls/a.mat": b"first", "b.txt": b""}


def headed(headers: dict[str, str]) -> tuple[tarfile.TarInfo, bytes]:
    member, content = file("data/a.txt")
    member.pax_headers = headers
    return member, content


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (file("../evil"), "'../evil' leads out of the archive"),
        (file("code/../../evil"), "leads out of the archive"),  # not even wanted
        (file("/tmp/evil"), "leads out of the archive"),
        (headed({"path": "../" * 9000 + "x"}), "leads out of the archive"),
        (headed({"path": "\x1b[2J/../x"}), "leads out of the archive"),
        (other("data/link", tarfile.SYMTYPE, "/etc/passwd"), "absolute"),
        (other("code/link", tarfile.SYMTYPE, "../../etc/passwd"), "outside the destination"),
        (other("data/link", tarfile.SYMTYPE, "a.txt"), "'data/link' (0 bytes) is a link, over"),
        (other("data/link", tarfile.LNKTYPE, "data/a.txt"), "(0 bytes) is a link, over"),
        (other("data/null", tarfile.CHRTYPE), "special file"),
        (headed({"size": "-512"}), "negative size"),
        (headed({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), "not a complete .tar"),
        (headed({"GNU.sparse.map": "0,x"}), "not a complete .tar"),
    ],
)
def test_an_unsafe_or_senseless_member_refuses_the_archive(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    archive = pack(tmp_path / "a.tar", [member, file("data/z.txt")])
    told = refusal(lambda: take(archive, tmp_path / "out"), DataError)
    assert told.startswith(f"{archive}: ")
    assert reason in told
    assert "not a complete" in told or "get it from a source you trust" in told
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [archive]


# Bombs


@pytest.mark.parametrize(
    ("limit", "enough", "told"),
    [
        ("MOST_MEMBERS", 2, "over 1 members"),
        ("MOST_BYTES", 120, "119 bytes at 'data/b'"),
        ("MOST_BYTES_OF_ONE", 60, r"'data/b' \(60 bytes\) is a link, over 59 bytes"),
    ],
)
def test_an_archive_beyond_a_limit_is_refused_even_for_files_that_are_not_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, enough: int, told: str
) -> None:
    archive = pack(tmp_path / "a.tar", [file("code/a", b"1" * 60), file("data/b", b"1" * 60)])
    monkeypatch.setattr(archives, limit, enough - 1)
    with pytest.raises(DataError, match=told):
        take(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.setattr(archives, limit, enough)
    assert take(archive, tmp_path / "out") == {"b"}


def test_a_small_file_that_claims_a_terabyte_is_refused_at_once(tmp_path: Path) -> None:
    member = tarfile.TarInfo("code/zeros")
    member.size = 1 << 40
    header = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header + bytes(1 << 20)))
    with pytest.raises(DataError, match="8,589,934,592 bytes at 'code/zeros'"):
        take(tmp_path / "a.tgz", tmp_path / "out")


# Damage


@pytest.mark.parametrize("mtime", ["nan", "inf", "1e300"])
def test_a_time_that_no_clock_knows_does_not_stop_an_archive(tmp_path: Path, mtime: str) -> None:
    archive = pack(tmp_path / "a.tar", [headed({"mtime": mtime})])
    assert take(archive, tmp_path / "out") == {"a.txt"}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_archive_and_what_is_none_are_refused(tmp_path: Path, mode: str) -> None:
    whole = pack(tmp_path / "a.tar", [file("data/a", bytes(range(256)) * 40)], mode).read_bytes()
    cut = [whole[: len(whole) // 2], whole[:100], whole[:1], b""]
    for content in (*cut, b"<html>404</html>" * 100, gzip.compress(b"text" * 1000)):
        (tmp_path / "a.tar").write_bytes(content)
        told = refusal(lambda: take(tmp_path / "a.tar", tmp_path / "out"), DataError)
        assert re.search(r"a\.tar: not a complete \.tar or \.tar\.gz \(.*\); get it again$", told)


def test_a_gzip_archive_is_checked_by_its_own_checksum(tmp_path: Path) -> None:
    tar = pack(tmp_path / "a.tar", [file("data/a", bytes(range(256)) * 40)]).read_bytes()
    packed = bytearray(gzip.compress(tar, 0))  # as it is, so that only the checksum can tell
    packed[packed.index(bytes(range(200))) + 7] ^= 1
    (tmp_path / "a.tgz").write_bytes(packed)
    with pytest.raises(DataError, match=r"a\.tgz: not a complete .* \(CRC check failed"):
        take(tmp_path / "a.tgz", tmp_path / "out")


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar", [file("data/a"), file("data/a", b"other")])
    with pytest.raises(DataError, match=r"'data/a' .* there twice"):
        take(archive, tmp_path / "out")
