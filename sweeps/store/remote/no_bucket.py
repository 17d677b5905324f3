"""What a store without a bucket has in its place: the same methods, doing nothing."""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # only writers need locks: reading starts fast
    from sweeps.store.local_lock import LocalLock
    from sweeps.store.remote.bucket import ObjectInfo


class NoBucket:
    """The counterpart of `Remote`, which documents the methods, for a store without a bucket."""

    url: str | None = None

    def machine(self) -> str:
        """Return one id for all machines: those that share the folder see the same files."""
        return ""

    def require_answer(self) -> None:
        """Do nothing."""

    def check_writable(self) -> None:
        """Do nothing."""

    def lock(
        self, name: str, path: Path, *, on_lost: Callable[[], None] | None = None
    ) -> "LocalLock":
        """Return the lock of a file, whose folder is created; nobody can take it over."""
        from sweeps.store.local_lock import local_lock

        return local_lock(path)

    def objects(self, folder: str | Path) -> "dict[str, ObjectInfo]":
        """Return no objects."""
        return {}

    def push_folder(self, folder: str | Path, *, only: Container[str] | None = None) -> list[str]:
        """Upload nothing."""
        return []

    def pull_folder(
        self, folder: str | Path, *, skip: Iterable[str] = (), only: Container[str] | None = None
    ) -> list[str]:
        """Download nothing."""
        return []

    def has_file(self, file: str | Path) -> bool:
        """Return False."""
        return False

    def pull_file(self, file: str | Path) -> bool:
        """Download nothing."""
        return False

    def one_at_a_time(self) -> AbstractContextManager[Any]:
        """Exclude nobody, as nothing is downloaded."""
        return nullcontext()

    def delete(self, file: str | Path) -> None:
        """Delete nothing: the caller deletes the file itself."""

    def push_results(self) -> list[str]:
        """Upload nothing."""
        return []

    def pull_results(self) -> list[str]:
        """Download nothing."""
        return []

    def push_training(self, folder: str | Path) -> None:
        """Upload nothing."""

    def pull_training(self, folder: str | Path) -> None:
        """Download nothing."""

    def take_over_training(self, folder: str | Path, checkpoints: Sequence[str]) -> None:
        """Do nothing."""
