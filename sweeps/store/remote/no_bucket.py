"""What a store without a bucket has in its place: the same methods, doing nothing."""

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

    def lock(self, name: str, path: Path) -> "LocalLock":
        """Return the lock of a file, whose folder is created; nobody can take it over."""
        from sweeps.store.local_lock import local_lock

        return local_lock(path)

    def objects(self, folder: str | Path) -> "dict[str, ObjectInfo]":
        """Return no objects."""
        return {}

    def one_at_a_time(self) -> AbstractContextManager[Any]:
        """Exclude nobody, as nothing is downloaded."""
        return nullcontext()

    def has_file(self, file: str | Path) -> bool:
        """Return False."""
        return False

    def delete(self, *given: object, **options: object) -> None:
        """Do nothing."""

    pull_file = has_file
    require_answer = check_writable = delete
    push_folder = pull_folder = pull_training = pull_results = delete
