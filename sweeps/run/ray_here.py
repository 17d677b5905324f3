"""What Ray needs of the machine on which it is started, where it needs more than it has to."""

import os
import secrets
from pathlib import Path

from sweeps.store.errors import StoreError

MAX_BYTES = 40
"""A socket's path may have 107 bytes. Ray appends up to 67, as in
/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store."""
SHORT = "/tmp"


def prepare_machine() -> None:
    """Let Ray keep its sockets where their paths are short, and write no token into the home.

    For this process and those that it starts. Raises StoreError if no short folder is to be had,
    or if Ray's folder in it is another user's.
    """
    # Ray writes a token that it lacks into ~/.ray, which may be read-only. With it there, every
    # `ray start` of this user would ask for that token.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name) or SHORT
    if len(os.fsencode(Path(folder).absolute())) <= MAX_BYTES:
        _require_own(Path(folder))
        return
    if name == "RAY_TMPDIR" or not os.access(SHORT, os.W_OK | os.X_OK):
        raise StoreError(
            f"{name}={folder}: too long for Ray's sockets; set RAY_TMPDIR to a folder that you may "
            f"write to, whose path has at most {MAX_BYTES} bytes"
        )
    _require_own(Path(SHORT))
    os.environ["RAY_TMPDIR"] = SHORT


def _require_own(folder: Path) -> None:
    rays = folder / "ray"
    if rays.is_dir() and not os.access(rays, os.W_OK | os.X_OK):
        raise StoreError(
            f"{rays}: another user's, and Ray keeps its sockets there; set RAY_TMPDIR to a folder "
            f"of your own, whose path has at most {MAX_BYTES} bytes"
        )
