"""Errors that a person can mend, and how the command line shows them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from wsss.printable import printable


class ForeseenError(Exception):
    """Base of errors whose message names the fault, the rule and the remedy, one a line."""


@contextmanager
def explained() -> Iterator[None]:
    """Print a foreseen error as `error: ...` and exit with 2; let any other error through."""
    try:
        yield
    except (ForeseenError, FileExistsError) as error:
        for line in str(error).splitlines() or [repr(error)]:
            print(f"error: {printable(line)}", file=sys.stderr)
        raise SystemExit(2) from None
