"""What can go wrong with a store, on disk or in a bucket, and the remedies."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from wsss.basics.errors import FULL, NO_LOCKS, NO_LOCKS_REMEDY, ForeseenError

FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}


class StoreError(ForeseenError, RuntimeError):
    """The store cannot be used. The message names the path or URL and the remedy."""


def comes_again(error: object) -> TypeGuard[ForeseenError]:
    """Whether the same attempt would meet an error again: a foreseen one, but of the store.

    A disk that is full or a bucket that is away may be mended meanwhile.
    """
    return isinstance(error, ForeseenError) and not isinstance(error, StoreError)


class AlteredError(StoreError):
    """An object in the bucket is not what was uploaded."""


class CutError(Exception):
    """Bytes were lost in transfer; another try may succeed."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise StoreError for a disk that is full, not writable or without locks.

    Other errors pass through. path: named in the message if the error does not name a file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            remedy = (
                "free space on that disk or raise the limit, and give the same command again; it "
                "continues from the last checkpoint"
            )
        elif error.errno in FORBIDDEN:
            remedy = "name a folder that you can write to, or have this one made writable for you"
        elif error.errno in NO_LOCKS:
            remedy = NO_LOCKS_REMEDY
        else:
            raise
        where = error.filename or path
        raise StoreError(f"{where}: cannot be written ({error.strerror}); {remedy}") from error
