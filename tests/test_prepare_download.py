"""Downloads from a server that drops, truncates, and lies: whole files, or a clear error."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.progress import Progress

from wsss.data.download import DownloadError, Retries, fetch, verify
from wsss.data.voc import DataError

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
MD5 = {"md5": hashlib.md5(CONTENT).hexdigest()}
QUICK = Retries(attempts=3, first_wait=0.01, timeout=5)


class Host:
    """A server on this machine. Each request takes the next behaviour; the last one stays.

    `ok` honours Range; `no-range` sends all; `drop` ends the connection after `drop_after` bytes of
    the answer; `shift` answers a Range from another byte; `html` is a page; a number is an error.
    """

    def __init__(self, files: dict[str, bytes], *behaviours: str | int) -> None:
        self.files, self.behaviours = files, list(behaviours or ["ok"])
        self.requests: list[tuple[str, str | None]] = []
        """Path and Range header of every request."""
        self.drop_after = 300_000
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def next_behaviour(self) -> str | int:
        return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted, behaviour = self.headers.get("Range"), host.next_behaviour()
            host.requests.append((self.path, wanted))
            content = host.files.get(self.path.removeprefix("/"))
            if content is None or isinstance(behaviour, int):
                self.send_error(behaviour if isinstance(behaviour, int) else 404)
                return
            start = int(wanted[6:-1]) if wanted and not behaviour.endswith("no-range") else 0
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            if behaviour == "shift":
                start += 1
            self.send_response(206 if start else 200)
            kind = "text/html" if behaviour == "html" else "application/x-tar"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            self.end_headers()
            stop = start + host.drop_after if behaviour.startswith("drop") else len(content)
            with suppress(ConnectionError):  # who is answered with a page hangs up
                self.wfile.write(content[start:stop])

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Host]]:
    """Append servers to have them closed."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    opened: list[Host] = []
    yield opened
    for host in opened:
        host.close()


def serve(hosts: list[Host], *behaviours: str | int, content: bytes = CONTENT) -> Host:
    hosts.append(Host({"a.tar": content}, *behaviours))
    return hosts[-1]


def get(
    folder: Path, *urls: Host | str, expected: dict[str, str] | None = None, name: str = "a.tar"
) -> Path:
    addresses = [f"{url.url}/a.tar" if isinstance(url, Host) else url for url in urls]
    with Progress(disable=True) as progress:
        return fetch(
            addresses, folder / name, MD5 if expected is None else expected,
            progress=progress, retries=QUICK,
        )  # fmt: skip


def refusal(folder: Path, *urls: Host | str, expected: dict[str, str] | None = None) -> str:
    with pytest.raises(DownloadError) as caught:
        get(folder, *urls, expected=expected)
    return str(caught.value)


# What arrives


def test_a_file_arrives_whole_and_its_part_is_gone(tmp_path: Path, hosts: list[Host]) -> None:
    path = get(tmp_path / "new/folder", serve(hosts))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["a.tar"]


def test_dropped_connections_are_resumed_where_they_ended(
    tmp_path: Path, hosts: list[Host]
) -> None:
    host = serve(hosts, "drop")  # at most 300,000 bytes per connection, for ever
    assert get(tmp_path, host).read_bytes() == CONTENT
    ranges = [wanted for _, wanted in host.requests]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_part_of_an_earlier_call_is_continued(tmp_path: Path, hosts: list[Host]) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:1000])
    host = serve(hosts)
    assert get(tmp_path, host).read_bytes() == CONTENT
    assert host.requests == [("/a.tar", "bytes=1000-")]


def test_a_part_which_is_whole_is_only_checked(tmp_path: Path, hosts: list[Host]) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    assert get(tmp_path, serve(hosts)).read_bytes() == CONTENT


def test_a_part_which_is_longer_than_the_file_is_dropped(tmp_path: Path, hosts: list[Host]) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT + b"more")
    host = serve(hosts)
    assert get(tmp_path, host).read_bytes() == CONTENT
    assert [wanted for _, wanted in host.requests] == [f"bytes={len(CONTENT) + 4}-", None]


def test_without_a_digest_an_old_part_is_not_trusted(tmp_path: Path, hosts: list[Host]) -> None:
    (tmp_path / "a.tar.part").write_bytes(b"x" * 1000)
    host = serve(hosts)
    assert get(tmp_path, host, expected={}).read_bytes() == CONTENT
    assert host.requests == [("/a.tar", None)]


def test_a_wrong_old_part_costs_a_second_download_and_not_the_file(
    tmp_path: Path, hosts: list[Host]
) -> None:
    (tmp_path / "a.tar.part").write_bytes(b"x" * 1000)
    host = serve(hosts)
    assert get(tmp_path, host).read_bytes() == CONTENT
    assert [wanted for _, wanted in host.requests] == ["bytes=1000-", None]


def test_a_server_that_ignores_range_makes_it_start_again(
    tmp_path: Path, hosts: list[Host]
) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:1000])
    assert get(tmp_path, serve(hosts, "no-range")).read_bytes() == CONTENT


def test_an_answer_from_another_byte_is_not_appended(tmp_path: Path, hosts: list[Host]) -> None:
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:1000])
    host = serve(hosts, "shift", "ok")
    assert get(tmp_path, host).read_bytes() == CONTENT
    assert [wanted for _, wanted in host.requests] == ["bytes=1000-", None]


def test_a_busy_server_is_asked_again(tmp_path: Path, hosts: list[Host]) -> None:
    host = serve(hosts, 503, 503, "ok")
    assert get(tmp_path, host).read_bytes() == CONTENT
    assert len(host.requests) == 3


def test_waits_double_from_the_first_one(
    tmp_path: Path, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(DownloadError), Progress(disable=True) as progress:
        fetch(
            [f"{serve(hosts, 503).url}/a.tar"], tmp_path / "a.tar", MD5,
            progress=progress, retries=Retries(attempts=5, first_wait=1.0),
        )  # fmt: skip
    assert waits == [1, 2, 4, 8]


def test_the_next_address_is_used_when_the_first_has_nothing(
    tmp_path: Path, hosts: list[Host]
) -> None:
    gone, dead, good = serve(hosts, 404), serve(hosts), serve(hosts)
    hosts.remove(dead)
    dead.close()
    assert get(tmp_path, gone, dead, good).read_bytes() == CONTENT
    assert len(gone.requests) == 1  # 404 will not get better
    assert len(good.requests) == 1


def test_an_altered_copy_is_left_for_the_next_address(tmp_path: Path, hosts: list[Host]) -> None:
    altered = serve(hosts, content=b"!" + CONTENT[1:])
    assert get(tmp_path, altered, serve(hosts)).read_bytes() == CONTENT


def test_a_file_that_is_there_is_checked_and_not_asked_for(
    tmp_path: Path, hosts: list[Host]
) -> None:
    host = serve(hosts)
    get(tmp_path, host)
    get(tmp_path, host)
    assert len(host.requests) == 1


def test_ctrl_c_keeps_the_part_and_the_next_call_goes_on(
    tmp_path: Path, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = serve(hosts, "drop", "ok")

    def press(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", press)
        with pytest.raises(KeyboardInterrupt):
            get(tmp_path, host)
    assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:300_000]
    assert get(tmp_path, host).read_bytes() == CONTENT
    assert host.requests[-1] == ("/a.tar", "bytes=300000-")


# What is refused


def test_an_altered_file_is_told_with_name_digests_size_and_remedy(
    tmp_path: Path, hosts: list[Host]
) -> None:
    altered = b"!" + CONTENT[1:]
    told = refusal(tmp_path, serve(hosts, content=altered))
    for part in (
        "a.tar: md5", f"expected {MD5['md5']}", f"found {hashlib.md5(altered).hexdigest()}",
        "1,024,000 bytes", "get it again", "--mirror",
    ):  # fmt: skip
        assert part in told
    assert list(tmp_path.iterdir()) == []


def test_every_digest_must_fit(tmp_path: Path, hosts: list[Host]) -> None:
    told = refusal(tmp_path, serve(hosts), expected=MD5 | {"sha256": "0" * 64})
    assert f"sha256 expected {'0' * 64}, found {hashlib.sha256(CONTENT).hexdigest()}" in told


def test_a_digest_in_capitals_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    verify(tmp_path / "a.tar", {"md5": MD5["md5"].upper()})


def test_a_wrong_file_in_the_folder_is_not_overwritten(tmp_path: Path, hosts: list[Host]) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT[:10])
    host = serve(hosts)
    assert "delete it and get it again" in refusal(tmp_path, host)
    assert host.requests == []
    assert (tmp_path / "a.tar").read_bytes() == CONTENT[:10]


def test_a_server_that_never_gets_further_is_given_up(tmp_path: Path, hosts: list[Host]) -> None:
    host = serve(hosts, "drop-no-range")  # each time the same 300,000 bytes from the start
    told = refusal(tmp_path, host)
    assert "connection ended after 300,000 of 1,024,000 bytes" in told
    assert "3 tries in a row" in told
    assert len(host.requests) == 4  # the first brought bytes, three did not
    assert (tmp_path / "a.tar.part").stat().st_size == 300_000


def test_each_address_is_told_with_its_fault(tmp_path: Path, hosts: list[Host]) -> None:
    gone, page = serve(hosts, 404), serve(hosts, "html")
    lines = refusal(tmp_path, gone, page, "ftp://example.org/a.tar").splitlines()
    assert lines[0] == f"{gone.url}/a.tar: HTTP 404 Not Found"
    assert "a web page in place of the file" in lines[1]
    assert "not an http or https address" in lines[2]
    assert lines[3] == "a.tar: no address has it; give a local file or a --mirror"


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    host = serve(hosts)
    with pytest.raises(DataError, match=r"a\.tar\.part needs 0\.07 GB, 0\.00 GB are free"):
        get(tmp_path, host)
    assert not (tmp_path / "a.tar.part").exists()
