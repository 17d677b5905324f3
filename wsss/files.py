"""Files which are whole or absent, and paths as a person gives them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss.errors import ForeseenError

NO_HOME = "/nonexistent"
"""What HOME is set to where there is none, by an old custom: libraries insist on one."""


class BrokenFileError(ForeseenError, ValueError):
    """A file that is not what we wrote; the message names it and the remedy."""


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """Give a path to write to: it becomes `path` at the end, and is removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON by atomic rename; the file is on disk when this returns."""
    with whole_or_absent(path) as partial, partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> Any:
    """Read JSON; None if there is no such file. Raises BrokenFileError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:  # also too deep, and numbers too long
        raise BrokenFileError(
            f"{path}: not JSON ({error}); delete the file to do the stage again"
        ) from None


class PathError(ForeseenError):
    """A path that leads nowhere; the message names it and the remedy."""


def expanded(path: str) -> str:
    """Return a path with `~` and `~name` replaced by the folder that they stand for.

    A shell leaves `--out=~/x`, variables and quoted words as they are. Raises PathError if there is
    no such user, or no home.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - of an unknown home, Path's raises
    if path.startswith("~") and (found == path or found.startswith(NO_HOME)):
        first = path.partition("/")[0]
        why = "no home folder is known" if first == "~" else f"there is no user {first[1:]}"
        raise PathError(f"{path}: {why}; write the folder in full, or ./{first} if it is called so")
    return found


def cache_folder() -> Path | None:
    """Return the user's folder for what can be made again; None without a home.

    XDG_CACHE_HOME, else ~/.cache.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache"))
    except PathError:
        return None
