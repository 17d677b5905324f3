"""What can go wrong with a store, on disk or in a bucket, and what a person can do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsss.errors import ForeseenError

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class StoreError(ForeseenError, RuntimeError):
    """The store cannot be used; the message names the path or URL and the remedy."""


class AlteredError(StoreError):
    """An object in the bucket is not what was uploaded."""


class ConditionError(Exception):
    """A conditional write was refused: the object is not as expected."""


class CutError(Exception):
    """Bytes were lost on the way; another try may succeed."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise StoreError for a disk that is full or read-only; let any other error through.

    path: what was to be written, named if the error does not name a file itself.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise StoreError(
            f"{error.filename or path}: cannot be written ({error.strerror}); free space on that "
            "disk and give the same command again, it goes on from the last checkpoint"
        ) from error
