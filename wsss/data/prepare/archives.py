"""The public archives of VOC 2012 and SBD: where they come from, and how they are unpacked.

A digest is checked wherever an archive comes from. Its content is still not trusted: a path or link
that leads out, a device, or an absurd size refuses the whole archive, and only regular files are
ever written.
"""

import gzip
import hashlib
import re
import shutil
import string
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from rich.markup import escape
from rich.progress import Progress

from wsss.basics.errors import FULL
from wsss.basics.printable import quoted
from wsss.data.errors import DataError

SPARE_BYTES = 64 << 20
"""Left free on the disk beyond what a step is known to write."""
MOST_MEMBERS, MOST_BYTES = 200_000, 8 << 30
"""Of an archive, unused members included: about four times what VOC and SBD hold."""
MOST_BYTES_OF_ONE = 64 << 20
"""Of a wanted file."""
MOST_PADDING = 16 << 20
"""Behind an archive's last member; tar writes kilobytes."""
TIMEOUT = 30.0
"""Seconds without a byte after which an address is given up."""
REFUSED = "nothing of the archive is used, get it from a source you trust"


class Source(NamedTuple):
    """A public archive."""

    filename: str
    url: str | None
    """None: available from a mirror or as a local file only."""
    md5: str | None


@dataclass(frozen=True)
class PrepareRequest:
    """What to prepare, and from where."""

    root: Path
    """Folder to write, usually .../VOCdevkit/VOC2012. If it holds VOC already, it is completed."""
    archives: Mapping[str, Path] = field(default_factory=dict)
    """Step (voc, sbd, test) -> local archive."""
    mirrors: tuple[str, ...] = ()
    """Addresses of folders that hold the archives, tried in order before the public ones."""
    downloads: Path | None = None
    """Folder of downloaded archives; default: `archives` beside `root`."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """File name of an archive -> hex digest, in addition to the known MD5."""
    with_test: bool = False
    allow_partial: bool = False
    """Accept archives and lists that are not the official ones: no MD5, no list digests."""
    num_workers: int = 1

    def __post_init__(self) -> None:
        for name, digest in self.sha256.items():
            if not re.fullmatch("[0-9a-fA-F]{64}", digest):
                raise DataError(f"{name}: {digest!r} is not a SHA-256; give 64 hex digits")


def public_sources() -> dict[str, Source]:
    """Return the archives by step. Addresses and MD5 are torchvision's, read at run time."""
    from torchvision.datasets import SBDataset
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    voc = DATASET_YEAR_DICT["2012"]
    return {
        "voc": Source(voc["filename"], voc["url"], voc["md5"]),
        "sbd": Source(SBDataset.filename, SBDataset.url, SBDataset.md5),
        "test": Source("VOC2012test.tar", None, None),  # for registered users only
    }


def check_files(
    request: PrepareRequest, sources: Mapping[str, Source], steps: Iterable[str]
) -> None:
    """Raise DataError if a step cannot get its archive, or a digest of no archive was given."""
    for step in steps:
        source, path = sources[step], _archive(step, sources[step], request)
        if step in request.archives and not path.is_file():
            raise DataError(f"{path}: no such file; give the path of {source.filename}")
        if not (path.exists() or request.mirrors or source.url):
            raise DataError(
                f"{path.name}: has no public address; register with the organisers of VOC and give "
                f"the file (--{step}), or a --mirror"
            )
    names = [_archive(step, source, request).name for step, source in sources.items()]
    for name in request.sha256:
        if name not in names:
            raise DataError(f"{name}: no archive of this name; there are {', '.join(names)}")


def obtain(step: str, source: Source, request: PrepareRequest, progress: Progress) -> Path:
    """Return the step's archive, local or downloaded, once its digests are checked.

    Raises DataError if it cannot be obtained or is not the expected one.
    """
    path = _archive(step, source, request)
    expected = {} if request.allow_partial or not source.md5 else {"md5": source.md5}
    if digest := request.sha256.get(path.name):
        expected["sha256"] = digest
    if not path.exists():
        urls = [f"{mirror.rstrip('/')}/{source.filename}" for mirror in request.mirrors]
        return download([*urls, *filter(None, [source.url])], path, expected, progress=progress)
    progress.console.print(f"checking {path.name}", markup=False)
    verify(path, expected)
    return path


def _archive(step: str, source: Source, request: PrepareRequest) -> Path:
    """Return where a step's archive is, or is downloaded to."""
    folder = request.downloads or request.root.absolute().parent / "archives"
    return request.archives.get(step) or folder / source.filename


def download(
    urls: list[str], path: Path, expected: Mapping[str, str], *, progress: Progress
) -> Path:
    """Download a file from the first address that has it with the right digests; return its path.

    expected: as for `verify`. Raises DataError if no address has it.
    """
    part = path.with_name(f"{path.name}.part")
    faults: list[str] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            try:
                _transfer(url, part, progress)
                verify(part, expected)
                return part.replace(path)
            except (HTTPException, OSError, ValueError) as error:  # DataError, and `http://[`
                if isinstance(error, HTTPError):
                    error.close()
                elif getattr(error, "filename", None) or getattr(error, "errno", None) in FULL:
                    raise  # the disk's fault: no other address helps
                faults.append(f"{url}: {error or type(error).__name__}")
                progress.console.print(escape(faults[-1]))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; choose another folder") from None
    finally:
        with suppress(NotADirectoryError):
            part.unlink(missing_ok=True)
    faults.append(
        f"{path.name}: no address has it; give a local file or a --mirror, or repeat until it is "
        f"complete: curl -L -C - -o {path} ADDRESS"
    )
    raise DataError("\n".join(faults))


def _transfer(url: str, part: Path, progress: Progress) -> None:
    if not url.startswith(("http://", "https://")):
        raise DataError("not an http or https address; give a local file by its own option")
    ascii_only = quote(url, safe=string.punctuation)
    request = Request(ascii_only, headers={"User-Agent": "wsss-sweeps"})
    with urlopen(request, timeout=TIMEOUT) as response:
        if response.headers.get_content_type() == "text/html":
            raise DataError("answers with a web page instead of the file")
        length = response.length or 0
        require_space(part.parent, length, part.name)
        description = f"download {escape(part.stem)}"
        with (
            part.open("wb") as file,
            progress.wrap_file(response, length or None, description=description) as source,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
            if file.tell() < length:
                raise DataError(f"connection ended after {file.tell():,} of {length:,} bytes")


def verify(path: Path, expected: Mapping[str, str]) -> None:
    """Compare the file's digests with the expected ones, e.g. {"md5": "6cd6e1..."}.

    Raises DataError naming the file, both digests, its size and the remedy.
    """
    for algorithm, digest in expected.items():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != digest.lower():
            raise DataError(
                f"{path}: {algorithm} expected {digest.lower()}, found {found} "
                f"({path.stat().st_size:,} bytes); the file is truncated or altered: delete it and "
                "get it again (--allow-partial accepts another MD5)"
            )


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raise DataError if the disk of `folder` has no room for `num_bytes` more."""
    free = shutil.disk_usage(folder).free
    if num_bytes + SPARE_BYTES > free:
        raise DataError(
            f"{folder}: {what} needs {(num_bytes + SPARE_BYTES) / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            "are free; make room or choose another folder"
        )


DAMAGED = (
    *(tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile),
    *(ValueError, OverflowError, LookupError, RecursionError),
)
"""From ValueError on: what tarfile raises for invalid numbers in headers."""


def extract(
    archive: Path, folder: Path, wanted: re.Pattern[str], *, progress: Progress
) -> set[str]:
    """Write the wanted members of a .tar or .tar.gz below `folder`; return their paths there.

    wanted: matches the whole path of such a member; its group 1 is the path below `folder`. Raises
    DataError if the archive is damaged, unsafe, or too large; files written by then stay,
    so `folder` should be a temporary one.
    """
    written: set[str] = set()
    try:
        with (
            progress.open(archive, "rb", description=f"extract {escape(archive.name)}") as raw,
            tarfile.open(fileobj=raw, mode="r:*") as tar,
        ):
            for member in _safe_members(tar, folder):
                match = wanted.fullmatch(member.name)
                if match is None or member.isdir():
                    continue
                path = match[1]
                if not member.isreg() or member.size > MOST_BYTES_OF_ONE or path in written:
                    raise DataError(
                        f"{quoted(member.name)} ({member.size:,} bytes) is a link, over "
                        f"{MOST_BYTES_OF_ONE:,} bytes, or there twice; {REFUSED}"
                    )
                # Without its time, which may be invalid.
                kept = member.replace(name=path, mtime=cast("int", None), deep=False)
                tar.extract(kept, folder, filter="data")
                written.add(path)
            # The checksum of a .tar.gz is at its very end, behind the last member.
            if tar.fileobj and len(tar.fileobj.read(MOST_PADDING)) == MOST_PADDING:
                raise DataError(f"goes on after its last member; {REFUSED}")
    except DataError as error:
        raise DataError(f"{archive}: {error}") from None
    except DAMAGED as error:
        why = str(error).partition(":\n")[0]  # what each of its readers says, in a line of its own
        raise DataError(
            f"{archive}: not a complete .tar or .tar.gz ({why}); get it again"
        ) from None
    except OSError as error:
        raise DataError(f"{archive}: {error.strerror or error} while extracting") from None
    return written


def _safe_members(tar: Iterable[tarfile.TarInfo], folder: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the members. Raises DataError at the first that is unsafe, even if it is not wanted.

    Unsafe are a path or link out of the archive, a device, and what goes beyond the limits.
    """
    total = 0
    for count, member in enumerate(tar, start=1):
        name, path = quoted(member.name), PurePosixPath(member.name)
        total += member.size
        if count > MOST_MEMBERS or total > MOST_BYTES:
            raise DataError(
                f"over {MOST_MEMBERS:,} members or {MOST_BYTES:,} bytes at {name}; VOC "
                "and SBD are smaller, get it again"
            )
        if member.size < 0:  # tarfile would go back and read the same header for ever
            raise DataError(f"{name} has a negative size; {REFUSED}")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{name} leads out of the archive; {REFUSED}")
        try:
            tarfile.data_filter(member, str(folder))
        except tarfile.FilterError as error:
            raise DataError(f"{error}; {REFUSED}") from None
        yield member
