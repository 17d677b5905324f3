"""Errors that the user can fix, and how the command line shows them."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from wsss.basics.printable import printable

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""The system's errors for a full disk or a limit reached, often without a file's name."""
OF_A_PATH = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
"""The system's errors for a path that cannot be used, however often one tries."""

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""A network drive's errors if it is mounted without flock, never with a file's name."""
NO_LOCKS_REMEDY = (
    "this drive has no locks, which keep two processes apart: name a folder on another one, or "
    "have it mounted with flock"
)


class ForeseenError(Exception):
    """Base of errors whose message names fault, rule and remedy, one error per line."""


def let_through(error: BaseException, path: Path, but: Iterable[int] = ()) -> None:
    """Raise an error of the system while a file was read again, with the file's name.

    It says nothing about the content: no rights, too many open files, a drive that fails. EINVAL
    does, as broken content led to a place outside the file, and a missing file is the reader's to
    explain. but: errors that are not raised, either.
    """
    of_the_file = {None, errno.EINVAL, errno.ENOENT, *but}
    if isinstance(error, OSError) and error.errno not in of_the_file:
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def named_in_errors(path: Path, partial: str = "") -> Iterator[None]:
    """Name a path in the system's error for a full disk, which names none, or for `partial`."""
    try:
        yield
    except OSError as error:
        if (error.errno in FULL and not error.filename) or (partial and error.filename == partial):
            error.filename = str(path)
        raise


@contextmanager
def explained() -> Iterator[None]:
    """Print a foreseen error as `error: ...` and exit with 2; let any other error through.

    A full disk and a path that cannot be used (another user's, too long, or where nothing can be
    made, as in /proc) are foreseen, too.
    """
    try:
        yield
    except ForeseenError as error:
        _refuse(str(error))
    except OSError as error:
        where = error.filename2 or error.filename  # the second one is a copy's, or a new name
        if error.errno in FULL:
            where = where or "the disk that is written to"
            _leave_full_output()
            remedy = "free space or raise the limit, and give the same command again"
            _refuse(f"{where}: {error.strerror}; {remedy}")
        if error.errno == errno.ENOENT and not where:
            _refuse("the current folder was deleted; change into another one")
        if error.errno == errno.EISDIR and where:
            _refuse(f"{where}: a folder in the place of a file; delete or rename it")
        if not where or error.errno not in {*OF_A_PATH, errno.ENOENT}:
            raise
        _refuse(
            f"{where}: {error.strerror}; name another path, or have this one made accessible to you"
        )


def _leave_full_output() -> None:
    """Print nowhere from now on if the output is on the full disk, too.

    Newer Pythons (3.13.5, not 3.13.0) try again at their end, complain, and exit with 120.
    """
    try:
        print(end="", flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _refuse(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)
    raise SystemExit(2) from None
