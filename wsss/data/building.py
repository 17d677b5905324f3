"""Building a folder so that it appears complete or not at all, by one process at a time."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from wsss.basics.errors import FULL, NO_LOCKS, NO_LOCKS_REMEDY, named_in_errors
from wsss.data.errors import DataError


@contextmanager
def alone(root: Path, program: str) -> Iterator[None]:
    """Hold a lock on `root`. program: the command, for the message to a second call.

    Raises DataError if another call holds the lock, and for what the system refuses meanwhile.
    """
    if not root.name:
        raise DataError(f"{root}: name a folder that is not there yet")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # A lock by the file's existence would outlive a killed process.
        lock = FileLock(root.with_name(f".{root.name}.lock"), timeout=0, fallback_to_soft=False)
        with lock:
            yield
    except Timeout:
        raise DataError(f"{root}: another `{program}` is at work; wait for it") from None
    except OSError as error:
        if error.errno in FULL:
            raise  # `errors.explained` has its own remedy
        remedy = f"; {NO_LOCKS_REMEDY}" if error.errno in NO_LOCKS else ""
        where = error.filename or root
        raise DataError(f"{where}: {error.strerror or error}{remedy}") from None


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """Make an empty folder, which is removed afterwards, as is what a killed call left there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with named_in_errors(folder.parent):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_vacant(root: Path) -> bool:
    """Return whether nothing is there, or an empty folder that `put_in_place` can replace.

    Raises DataError for an empty folder that cannot be replaced.
    """
    if not root.exists():
        return True
    if not root.is_dir() or any(root.iterdir()):
        return False
    if root.is_mount() or root.samefile(Path.cwd()):
        what = "a drive is mounted here" if root.is_mount() else "the folder that you are in"
        raise DataError(f"{root}: {what}, which cannot be replaced; name a folder inside it")
    return True


def put_in_place(building: Path, root: Path) -> None:
    """Rename a finished folder to `root`, which is vacant; its files are put on disk first.

    Else a power cut could leave empty files in it, and a later call would find it finished.
    """
    os.sync()  # of many thousands of files, each by itself takes minutes
    if root.exists():
        root.rmdir()
    building.rename(root)
