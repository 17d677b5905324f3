"""Paths as a person gives them, and the folders of the one who runs this, who may have no home."""

import os
from pathlib import Path

from wsss.errors import ForeseenError

NO_HOME = "/nonexistent"
"""What HOME is set to where there is none, by an old custom: libraries insist on one."""


class PathError(ForeseenError):
    """A path that leads nowhere; the message names it and the remedy."""


def expanded(path: str) -> str:
    """Return a path with `~` and `~name` replaced by the folder that they stand for.

    A shell leaves `--out=~/x`, variables and quoted words as they are. Raises PathError if there is
    no such user, or no home.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - of an unknown home, Path's raises
    if path.startswith("~") and (found == path or found.startswith(NO_HOME)):
        first = path.partition("/")[0]
        why = "no home folder is known" if first == "~" else f"there is no user {first[1:]}"
        raise PathError(f"{path}: {why}; write the folder in full, or ./{first} if it is called so")
    return found


def cache_folder() -> Path | None:
    """Return the user's folder for what can be made again; None without a home.

    XDG_CACHE_HOME, else ~/.cache.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache"))
    except PathError:
        return None
