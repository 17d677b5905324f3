"""Small JSON files, which are whole or absent."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss.errors import ForeseenError


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
