"""The lock of a file among the processes of one machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from sweeps.store.errors import disk_errors


class LocalLock(FileLock):
    """A file lock with the methods of a Lease. It is released when its process ends."""

    on_lost: Callable[[], None] | None = None
    """Never called: nobody can take it over."""

    def acquire(self, *args: Any, **options: Any) -> Any:
        """Take it as a FileLock does. Raises StoreError on a drive without locks."""
        with disk_errors(Path(self.lock_file)):
            return super().acquire(*args, **options)

    def check(self) -> None:
        """Do nothing: nobody can take it over."""


def local_lock(path: Path) -> LocalLock:
    """Return the lock of a file, whose folder is created."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock, which is the file's existence, would outlive a killed process.
    return LocalLock(path, fallback_to_soft=False)
