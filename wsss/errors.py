"""One place that turns foreseen errors into one line and an exit code for the command line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

FORESEEN = (ValueError, FileNotFoundError, FileExistsError, RuntimeError)
"""Error types whose message, in this project, names the fault and the remedy."""


@contextmanager
def explained() -> Iterator[None]:
    """Print a foreseen error as `error: ...` and exit with 2; let any other error through."""
    try:
        yield
    except FORESEEN as error:
        if not type(error).__module__.startswith(("wsss.", "sweeps.", "builtins")):
            raise
        for line in str(error).splitlines() or [repr(error)]:
            print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2) from None
