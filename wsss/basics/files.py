"""Small files from outside, read up to a limit; our own files, written atomically; paths."""

import fnmatch
import json
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

from wsss.basics.errors import OF_A_PATH, ForeseenError, let_through, named_in_errors

BROKEN_ZIP = (
    *(OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error),
    *(RuntimeError, MemoryError, TypeError),
)
"""What zipfile and NumPy raise for damaged archives of arrays; some OSError: see `let_through`."""
OTHER_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".webp", ".npy", ".json")
"""Of pictures, masks and labels from other tools."""
NO_HOME = "/nonexistent"
"""What HOME conventionally is for users without a home folder."""


def refuse_pipe(path: Path, refusal: type[ForeseenError]) -> None:
    """Raise `refusal` for a pipe, socket or device, which might never end."""
    if not path.is_file() and path.exists() and not path.is_dir():
        raise refusal(f"{path}: a pipe, socket or device; put a file there")


@contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for a library to read. Raises BrokenFileError for a pipe, which would block."""
    refuse_pipe(path, BrokenFileError)
    with path.open("rb") as file:
        yield file


def read_bytes(path: Path, limit: int, refusal: type[ForeseenError]) -> bytes:
    """Return a file's content. Raises `refusal` if it cannot be read or is over `limit` bytes."""
    refuse_pipe(path, refusal)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        let_through(error, path, but=OF_A_PATH)
        reason = f"{error.strerror} ({what_is_there(path)})"
        raise refusal(f"{path}: {reason}; put a readable file there") from None
    if len(content) > limit:
        raise refusal(f"{path}: over {limit:,} bytes; replace it")
    return content


def read_text(path: Path, limit: int, refusal: type[ForeseenError]) -> str:
    """Return a UTF-8 file's text without its byte order mark. Raises `refusal` as `read_bytes`."""
    content = read_bytes(path, limit, refusal)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or content[1:4:2] == b"\0\0":
        raise refusal(f"{path}: UTF-16 text, not UTF-8 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refusal(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8, not as Latin-1"
        ) from None


def what_is_there(path: Path) -> str:
    """Say in a few words what is at a file's path, or beside it under another spelling."""
    if path.is_dir():
        return "a folder"
    if path.exists():
        return "not readable"
    if path.is_symlink():
        return "a broken link"
    if not path.parent.exists():
        return f"no folder {path.parent.name}"
    stems = dict.fromkeys((path.stem, path.stem.lower(), path.stem.upper()))
    endings = [e for ending in OTHER_ENDINGS for e in (ending, ending.upper())]
    beside = (f"{stem}{ending}" for stem in stems for ending in endings)
    found = next((name for name in beside if path.with_name(name).exists()), None)
    return f"no file, but {found}" if found else "no file"


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return what a folder holds with a name of this pattern, by name; [] if it does not exist.

    Hidden files are left out, as macOS puts a `._0001.json` beside each file on a network drive.
    Raises OSError for a folder that cannot be read, of which Path.glob says that it is empty.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - of many thousands
    except FileNotFoundError:
        return []
    return [folder / n for n in sorted(fnmatch.filter(names, pattern)) if not n.startswith(".")]


class BrokenFileError(ForeseenError, ValueError):
    """A file that is not what we wrote; the message names it and the remedy."""


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end, its file is put on disk and renamed to `path`.

    On an error, which names `path`, it is removed. Renamed first, it could be empty after a power
    cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}-{threading.get_ident()}")
    try:
        with named_in_errors(path, str(partial)):
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON by atomic rename; the file is on disk when this returns."""
    with whole_or_absent(path) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def read_json(path: Path, remedy: str = "delete it, and give the same command again") -> Any:
    """Read JSON; None if there is no such file. Raises BrokenFileError if it is not JSON."""
    refuse_pipe(path, BrokenFileError)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        first = "" if remedy.startswith("delete") else "delete it, and "
        raise BrokenFileError(f"{path}: a folder in the place of a file; {first}{remedy}") from None
    except (OSError, ValueError, RecursionError) as error:  # of deep nesting, of long numbers
        let_through(error, path)
        raise BrokenFileError(f"{path}: not JSON ({error}); {remedy}") from None


class PathError(ForeseenError):
    """A `~` that cannot be expanded; the message names the path and the remedy."""


def expanded(path: str) -> str:
    """Return a path with `~` and `~name` replaced by the home folder that they stand for.

    A shell does not expand them in `--out=~/x`, variables and quoted words. Raises PathError if
    there is no such user, or no home.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - for an unknown home, Path's raises
    if path.startswith("~") and (found == path or found.startswith(NO_HOME)):
        first = path.partition("/")[0]
        why = "no home folder is known" if first == "~" else f"there is no user {first[1:]}"
        raise PathError(
            f"{path}: {why}; write the folder in full, or ./{first} if it has that name"
        )
    return found


def cache_folder() -> Path | None:
    """Return the user's cache folder: XDG_CACHE_HOME, else ~/.cache; None without a home."""
    try:
        return Path(expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    except PathError:
        return None
