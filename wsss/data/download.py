"""Downloads a large file over HTTP in as many tries as it takes, and checks it.

The bytes grow in `<name>.part` beside the target, which gets its name only once its checksum is
right. An interrupted download, Ctrl-C included, keeps the part; the next one asks for the rest.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich.markup import escape
from rich.progress import Progress, TaskID

from wsss.data.archives import require_space
from wsss.data.voc import DataError

CHUNK = 1 << 20
RETRIED_CODES = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers that may be better next time; any other error ends the address."""
MAX_BYTES = 16 << 30
"""Ends a server which says no length and never stops; the largest archive has 2 GB."""


class DownloadError(DataError):
    """A file that could not be had; the message names it, the addresses, faults and the remedy."""


class Retries(NamedTuple):
    """How long to try one address."""

    attempts: int = 5
    """Tries in a row that bring no new byte before the address is given up."""
    first_wait: float = 1.0
    """Seconds before the second try; doubled before each further one."""
    timeout: float = 30.0
    """Seconds without a byte that count as a failure."""


class _TransientError(Exception):
    """A fault which may pass."""


class _AddressError(Exception):
    """A fault which this address will have next time too."""


def fetch(
    urls: Sequence[str],
    target: Path,
    expected: Mapping[str, str],
    *,
    progress: Progress,
    retries: Retries | None = None,
) -> Path:
    """Download `target` from the first address that has it whole; return `target`.

    `expected` maps a hash name of hashlib to the hex digest that the file must have. A target that
    is there already is only checked. Without a digest no part of an earlier call is resumed, as
    nobody would notice if two versions were mixed. Raises DownloadError if every address fails.
    """
    if target.exists():
        verify(target, expected)
        return target
    part = target.with_name(f"{target.name}.part")
    if not expected:
        part.unlink(missing_ok=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{target.parent}: {error.strerror}; choose another folder") from None
    task = progress.add_task(f"download {escape(target.name)}", total=None)
    faults = []
    for url in urls:
        try:
            _whole(url, part, target.name, expected, progress, task, retries or Retries())
        except _AddressError as fault:
            faults.append(f"{url}: {fault}")
            progress.console.print(escape(faults[-1]))
            if not expected:
                part.unlink(missing_ok=True)
            continue
        part.replace(target)
        return target
    raise DownloadError(
        "\n".join([*faults, f"{target.name}: no address has it; give a local file or a --mirror"])
    )


def verify(path: Path, expected: Mapping[str, str], name: str = "") -> None:
    """Compare the file's digests with the expected ones, e.g. {"md5": "6cd6e1..."}.

    Raises DownloadError naming the file, both digests, its size and the remedy.
    """
    hashes = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in expected}
    if not hashes:
        return
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            for digest in hashes.values():
                digest.update(chunk)
    for algorithm, digest in hashes.items():
        if digest.hexdigest() != expected[algorithm].lower():
            raise DownloadError(
                f"{name or path}: {algorithm} expected {expected[algorithm].lower()}, found "
                f"{digest.hexdigest()} ({path.stat().st_size:,} bytes); the file is truncated or "
                "altered: delete it and get it again"
            )


def _whole(
    url: str, part: Path, name: str, expected: Mapping[str, str],
    progress: Progress, task: TaskID, retries: Retries,
) -> None:  # fmt: skip
    # A wrong digest after a resumption may be the fault of the old part: then once from the start.
    if urlsplit(url).scheme not in ("http", "https"):
        raise _AddressError("not an http or https address; give a local file by its own option")
    while True:
        resumed = _size(part) > 0
        _persist(url, part, progress, task, retries)
        try:
            verify(part, expected, name)
        except DownloadError as error:
            part.unlink()
            if not resumed:
                raise _AddressError(str(error)) from None
            progress.console.print("the resumed file has a wrong checksum; from the start")
        else:
            return


def _persist(url: str, part: Path, progress: Progress, task: TaskID, retries: Retries) -> None:
    # Progress is what exceeds the longest part so far: a server that ignores Range and breaks off
    # each time would else be asked for ever.
    longest, failures = _size(part), 0
    while True:
        try:
            _transfer(url, part, progress, task, retries.timeout)
        except (_TransientError, OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
        else:
            return
        failures = 0 if _size(part) > longest else failures + 1
        longest = max(longest, _size(part))
        if failures >= retries.attempts:
            raise _AddressError(
                f"{failures} tries in a row brought nothing new, the last: {reason}"
            )
        wait = retries.first_wait * 2 ** max(failures - 1, 0)
        progress.console.print(escape(f"{url}: {reason}; again in {wait:g} s"))
        time.sleep(wait)


def _transfer(url: str, part: Path, progress: Progress, task: TaskID, timeout: float) -> None:
    """Append what is missing to the part, in one request."""
    start = _size(part)
    headers = {"User-Agent": "wsss-sweeps"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=timeout)
    except HTTPError as error:
        with error:
            if error.code == 416 and _content_range(error.headers)[1] == start:
                return  # the part was whole already
            if error.code == 416:
                part.unlink()
                raise _TransientError("the part does not fit the file; from the start") from None
            fault = f"HTTP {error.code} {error.reason}"
            raise (_TransientError if error.code in RETRIED_CODES else _AddressError)(
                fault
            ) from None
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _AddressError("answers with a web page in place of the file")
        start, total = _place(response, part, start)
        require_space(part.parent, (total or start) - start, part.name)
        progress.update(task, completed=start, total=total)
        try:
            file = part.open("ab" if start else "wb")
        except OSError as error:
            raise DownloadError(f"{part}: {error.strerror}; choose another folder") from None
        with file:
            while chunk := response.read(CHUNK):
                _write(file, chunk, part)
                progress.advance(task, len(chunk))
    if total is not None and _size(part) != total:
        raise _TransientError(f"connection ended after {_size(part):,} of {total:,} bytes")


def _place(response: HTTPResponse, part: Path, start: int) -> tuple[int, int | None]:
    # The byte that the answer begins with, and the size of the whole file if the server tells it.
    if response.status == 206:
        first, total = _content_range(response.headers)
        if first == start:
            return start, total
        part.unlink()
        raise _TransientError(f"asked for byte {start}, got byte {first}; from the start")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    found = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", headers.get("Content-Range", "").strip()
    )
    first, total = found.groups() if found else (None, None)
    return int(first) if first else None, int(total) if total else None


def _write(file: IO[bytes], chunk: bytes, part: Path) -> None:
    # Faults of the disk are no faults of the network: no further try.
    try:
        file.write(chunk)
    except OSError as error:
        raise DownloadError(
            f"{part}: {error.strerror}; make room and give the command again, it goes on from here"
        ) from None
    if file.tell() > MAX_BYTES:
        raise DownloadError(f"{part}: over {MAX_BYTES:,} bytes; no archive is so large, delete it")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
