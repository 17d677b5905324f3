"""Errors that a person can mend, and how the command line shows them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from wsss.printable import printable


class ForeseenError(Exception):
    """Base of errors whose message names the fault, the rule and the remedy, one a line."""


@contextmanager
def explained() -> Iterator[None]:
    """Print a foreseen error as `error: ...` and exit with 2; let any other error through.

    A path that is not one's own, or no folder where one should be, is foreseen as well.
    """
    try:
        yield
    except ForeseenError as error:
        _refuse(str(error))
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        if not error.filename:
            raise
        _refuse(
            f"{error.filename}: {error.strerror}; name another path, or have this one made "
            "accessible to you"
        )


def _refuse(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"error: {printable(line)}", file=sys.stderr)
    raise SystemExit(2) from None
