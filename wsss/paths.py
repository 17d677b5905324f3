"""Paths as a person gives them, and the folders of the one who runs this, who may have no home."""

import os
from pathlib import Path

from wsss.errors import ForeseenError


class PathError(ForeseenError):
    """A path that leads nowhere; the message names it and the remedy."""


def expanded(path: str) -> str:
    """Return a path with `~` and `~name` replaced by the folder that they stand for.

    A shell leaves `--out=~/x`, variables and quoted words as they are. Raises PathError if there is
    no such user, or no home.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - of an unknown home, Path's raises
    if path.startswith("~") and found == path:
        first, name = path.partition("/")[0], path[1:].partition("/")[0]
        why = f"no user {name} is known" if name else "no home folder is known; set HOME"
        raise PathError(f"{path}: {why}; write ./{first} for a folder of that name")
    return found


def cache_folder() -> Path | None:
    """Return the user's folder for what can be made again; None without a home.

    XDG_CACHE_HOME, else ~/.cache.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache"))
    except PathError:
        return None
