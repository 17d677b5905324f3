"""The folder in which Ray keeps its sockets, whose paths are short."""

import os
from pathlib import Path

from sweeps.store.errors import StoreError

MAX_BYTES = 40
"""A socket's path may have 107 bytes. Ray appends up to 67, as in
/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store."""
SHORT = "/tmp"


def choose_ray_folder() -> None:
    """Let Ray use /tmp if TMPDIR is too long for it, for this process and those which it starts.

    Raises StoreError if that cannot be, or if RAY_TMPDIR is too long.
    """
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name) or SHORT
    if len(os.fsencode(Path(folder).absolute())) <= MAX_BYTES:
        return
    if name == "TMPDIR" and os.access(SHORT, os.W_OK | os.X_OK):
        os.environ["RAY_TMPDIR"] = SHORT
        return
    raise StoreError(
        f"{name}={folder}: too long for Ray's sockets; set RAY_TMPDIR to a folder that you may "
        f"write to, whose path has at most {MAX_BYTES} bytes"
    )
