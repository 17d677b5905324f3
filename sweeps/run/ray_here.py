"""What Ray needs of the machine on which it is started, where it needs more than it has to."""

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from sweeps.store.errors import StoreError

STARTS = 3
"""Attempts to start Ray, which gives a part of itself 15 seconds that no setting lengthens (Ray's
issue 65983): too few on a machine with much other work."""
TOO_SLOW = ("timed out during startup", "Failed to start GCS")
"""What Ray's bare exceptions then say, one of them."""
TOKEN = secrets.token_hex(32)
"""One for the life of the process: Ray reads it once, and a second start with another would end in
"Failed to start GCS"."""

MAX_BYTES = 40
"""A socket's path may have 107 bytes. Ray appends up to 67, as in
/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store."""
REMEDY = (
    f"set RAY_TMPDIR to a folder that you may write to, whose path has at most {MAX_BYTES} bytes"
)
SHORT = "/tmp"


def prepare_machine() -> None:
    """Let Ray keep its sockets where their paths are short, and write no token into the home.

    For this process and those that it starts. Raises StoreError if there is no short folder in
    which Ray can write.
    """
    # Ray writes a token that it lacks into ~/.ray, which may be read-only. With it there, every
    # `ray start` of this user would ask for that token.
    os.environ.setdefault("RAY_AUTH_TOKEN", TOKEN)
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name) or SHORT
    if len(os.fsencode(Path(folder).absolute())) <= MAX_BYTES:
        _require_writable(Path(folder), name)
        return
    if name == "RAY_TMPDIR" or not os.access(SHORT, os.W_OK | os.X_OK):
        raise StoreError(f"{name}={folder}: too long for Ray's sockets; {REMEDY}")
    _require_writable(Path(SHORT), name)
    os.environ["RAY_TMPDIR"] = SHORT


def started(start: Callable[[], object], end: Callable[[], object]) -> None:
    """Start Ray; where it was too slow for itself, say so, end what it left, start it again.

    Raises StoreError if it is so STARTS times. Any other error is let through.
    """
    for attempt in range(1, STARTS + 1):
        try:
            start()
            return
        except Exception as error:  # Ray raises no kind of its own here
            if not any(words in str(error) for words in TOO_SLOW):
                raise
            print(f"Ray was too slow to start, {attempt} of {STARTS} times", file=sys.stderr)
            end()
    raise StoreError(
        f"Ray was too slow for its own time limit, {STARTS} times: this machine is too busy; give "
        "the same command again when it has less to do, or join a cluster with --address"
    )


def _require_writable(folder: Path, name: str) -> None:
    """Raise StoreError unless Ray can write in a folder, which is made, and in its own one there.

    name: the variable that the folder comes from.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{name}={folder}: {error.strerror}; {REMEDY}") from None
    rays = folder / "ray"
    if rays.is_dir() and not os.access(rays, os.W_OK | os.X_OK):
        raise StoreError(f"{rays}: another user's, and Ray keeps its sockets there; {REMEDY}")
    if not rays.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"{name}={folder}: not writable; {REMEDY}")
