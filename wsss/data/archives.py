"""Takes chosen files out of a tar archive that nobody vouches for.

Every member is looked at, also those that are not wanted: a path or a link
out of the archive, or a device, refuses the whole archive. Only regular files are ever written.
"""

import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from rich.markup import escape
from rich.progress import Progress

from wsss.data.voc import DataError
from wsss.printable import quoted

SPARE_BYTES = 64 << 20
"""Left free on the disk beyond what a step is known to write."""
MAX_READ = 1 << 20
"""Bytes of one read. File contents come in smaller pieces; a header that wants more is a bomb."""


class ArchiveError(DataError):
    """An archive that cannot be used; the message names file, member, rule and remedy."""


class Limits(NamedTuple):
    """What an archive may hold, unwanted members included: about four times what VOC and SBD do."""

    members: int = 200_000
    total_bytes: int = 8 << 30
    member_bytes: int = 64 << 20
    """Of one wanted file."""


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raise DataError if the disk of `folder` has no room for `num_bytes` more."""
    free = shutil.disk_usage(folder).free
    if num_bytes + SPARE_BYTES > free:
        raise DataError(
            f"{folder}: {what} needs {(num_bytes + SPARE_BYTES) / 1e9:.2f} GB, {free / 1e9:.2f} GB "
            "are free; make room or choose another folder"
        )


def extract(
    archive: Path,
    folder: Path,
    choose: Callable[[str], str | None],
    *,
    progress: Progress,
    limits: Limits | None = None,
) -> set[str]:
    """Write the chosen members of a .tar or .tar.gz below `folder`; return their paths there.

    `choose` gets a member's path and returns where it goes, relative to `folder`, or None. Raises
    ArchiveError if the archive is damaged, unsafe, or beyond `limits`; files written by then stay,
    so `folder` is best a temporary one.
    """
    limits, written = limits or Limits(), set[str]()
    task = progress.add_task(f"extract {escape(archive.name)}", total=archive.stat().st_size)
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(archive.open("rb"))
            guard = _Guard(_content(raw, stack))
            tar = stack.enter_context(tarfile.open(fileobj=cast("IO[bytes]", guard), mode="r:"))
            total = 0
            for count, member in enumerate(tar, start=1):
                if member.size < 0:  # tarfile would go back, and read the same header for ever
                    raise ArchiveError(f"{archive}: {quoted(member.name)} has a negative size")
                total += member.size
                if count > limits.members or total > limits.total_bytes:
                    raise ArchiveError(
                        f"{archive}: over {limits.members:,} members or {limits.total_bytes:,} "
                        f"bytes at {quoted(member.name)}; VOC and SBD are smaller, get it again"
                    )
                path = _checked(archive, member, folder, choose, limits)
                if path in written:
                    raise ArchiveError(f"{archive}: {path} is there twice; get the archive again")
                if path:
                    # Without its time, which may be one that no clock knows.
                    kept = member.replace(name=path, mtime=cast("int", None), deep=False)
                    tar.extract(kept, folder, filter="data")
                    written.add(path)
                progress.update(task, completed=raw.tell())
            if any(guard.last):  # tarfile takes an unreadable header for the end
                raise ArchiveError(f"{archive}: damaged after {count:,} members; get it again")
        except ArchiveError:
            raise
        except _DAMAGED as error:
            raise ArchiveError(f"{archive}: not a whole .tar or .tar.gz ({error})") from None
        except OSError as error:
            raise ArchiveError(f"{archive}: {error.strerror or error} while extracting") from None
    return written


def _content(raw: IO[bytes], stack: ExitStack) -> IO[bytes]:
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    if is_gzip:
        return cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw)))
    return raw


def _checked(
    archive: Path, member: tarfile.TarInfo, folder: Path,
    choose: Callable[[str], str | None], limits: Limits,
) -> str | None:  # fmt: skip
    """Return where the member goes, None if it is not wanted. Raises ArchiveError if unsafe."""
    path = PurePosixPath(member.name)
    try:
        if path.is_absolute() or ".." in path.parts:
            raise ArchiveError(
                f"{archive}: {quoted(member.name)} leads out of the archive; {REFUSED}"
            )
        tarfile.data_filter(member, str(folder))  # links and devices
    except tarfile.FilterError as error:
        raise ArchiveError(f"{archive}: {error}; {REFUSED}") from None
    target = choose(member.name)
    if target is None or member.isdir():
        return None
    if not member.isreg():
        raise ArchiveError(f"{archive}: {quoted(member.name)} is a link, not a file; {REFUSED}")
    if member.size > limits.member_bytes:
        raise ArchiveError(
            f"{archive}: {quoted(member.name)} has {member.size:,} bytes, allowed are "
            f"{limits.member_bytes:,}; {REFUSED}"
        )
    return target


REFUSED = "nothing of the archive is used, get it from a place you trust"


class _HeaderBombError(Exception):
    """A tar header that wants to be read into memory whole."""


_DAMAGED = (
    tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, _HeaderBombError,
    ValueError, OverflowError, IndexError, KeyError, RecursionError,
)  # fmt: skip
"""The second line is what tarfile lets out of itself for senseless numbers in headers."""


class _Guard(io.RawIOBase):
    """Refuses huge reads, which tarfile does for extended headers, and keeps the last read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.last = file, b""

    def readable(self) -> bool:
        """Return True: tarfile only reads."""
        return True

    def seekable(self) -> bool:
        """Return True: forwards at least."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        if size < 0 or size > MAX_READ:
            raise _HeaderBombError(f"a header of {size:,} bytes")
        self.last = self.file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte of the unpacked content."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the unpacked content."""
        return self.file.tell()
