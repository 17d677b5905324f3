"""The files of a store in a bucket, and their copies in a folder on this machine, the mirror.

All code reads and writes the mirror. A file goes up to s3://bucket/prefix/<same path> if the bucket
lacks it or has another one, and comes down likewise; files that say that a folder is finished are
the last to be copied. An object carries the SHA-256 of its file, and only a download that agrees
with it is believed.

Nearly all files are written once. One that changes has one writer at a time, who holds a lock or
lease; the last who wrote wins. `<mirror>/.synced/<path>` notes to which object a file was equal
last: so nothing is copied twice or read for comparison, and a change that is made here and not yet
uploaded is not overwritten.
"""

import fnmatch
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import Timeout

from sweeps.store.bucket import Bucket, ObjectInfo
from sweeps.store.errors import AlteredError, CutError, StoreError, disk_errors
from sweeps.store.local_lock import local_lock

if TYPE_CHECKING:  # it imports this module
    from sweeps.store.lease import Lease

NUM_THREADS = 8
"""Transfers at a time: small objects wait for answers more than for bytes."""

NOT_COPIED = ("*.lock", "*.partial*", "*.broken", ".*")
"""Names of files that mean something on one machine alone."""

MARKERS = ("done.json",)
"""Files that say that a folder is finished: they are copied after all others, in this order."""

RESULT_FOLDERS = ("cams", "runs", "sweeps", "searches", "headline")
"""What tables, status and reports read."""

CHECKPOINTS = "cams/*/checkpoints/*"
KEPT_CHECKPOINTS = 2
"""As wsss/training/checkpoint.py keeps; named here too, because that file loads torch."""

TRAINING_PARTS = ("", "attempts", "epochs", "checkpoints")
"""The folders within a training's folder that belong to it; not its maps, for example."""

AT_WORK = {
    "cams": "stage.lock",
    "sweeps": "driver.lock",
    "searches": "driver.lock",
    "headline": "driver.lock",
}
"""Folder of results -> the lock that a process holds while it works in one."""

logger = logging.getLogger(__name__)


class Remote:
    """A store's place in a bucket, and its mirror on this machine. It can be pickled.

    Files and folders are named by their path relative to the store, or by their Path in the mirror.
    Whatever reads or writes the bucket raises StoreError if it does not answer for half a minute.
    """

    def __init__(self, url: str, mirror: Path) -> None:
        self.url, self.mirror = url.rstrip("/"), mirror
        scheme, _, rest = self.url.partition("://")
        name, _, prefix = rest.partition("/")
        if scheme != "s3" or not name:
            raise StoreError(f"{url}: not an object store; write s3://bucket/prefix")
        self.bucket = Bucket(name)
        self.prefix = f"{prefix}/" if prefix else ""
        self.notes = _Notes(mirror)

    def machine(self) -> str:
        """Return the id of this mirror; processes with the same one see the same files."""
        path = self.mirror / ".machine"
        if not path.exists():
            partial = path.with_name(f".machine.partial{os.getpid()}")
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(uuid.uuid4().hex)
                try:
                    os.link(partial, path)  # unlike a rename, never replaces another's id
                except FileExistsError:
                    pass
                finally:
                    partial.unlink()
        return path.read_text()

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written into the bucket."""
        key = self.key(f".probe-{self.machine()}")
        self.bucket.put_bytes(key, b"")
        self.bucket.delete(key)

    def lock(
        self, name: str, path: Path, *, note: str = "", on_lost: Callable[[], None] | None = None
    ) -> "Lease":
        """Return the lease leases/<name>, which excludes other machines as well as processes here.

        path: a file to lock among the processes of this machine; its folder is made. note: for
        others to read. on_lost: called once, in another thread, should somebody take it over.
        """
        from sweeps.store.lease import Lease

        return Lease(self, f"leases/{name}", local_lock(path), note=note, on_lost=on_lost)

    # Files

    def objects(self, folder: str | Path) -> dict[str, ObjectInfo]:
        """Return the objects of a folder and all below it, by path relative to the store."""
        found = self.bucket.objects(self.key(self._rel(folder)) + "/")
        return {info.key.removeprefix(self.prefix): info for info in found}

    def key(self, rel: str) -> str:
        """Return the key of a path."""
        return self.prefix + rel

    def push_folder(self, folder: str | Path, *, only: Container[str] | None = None) -> list[str]:
        """Upload the files of a folder which the bucket lacks or has otherwise; return them.

        only: the names of files to upload; None: all.
        """
        there = self.objects(folder)
        names = [rel for rel in self._files(folder) if only is None or Path(rel).name in only]
        return self._push(names, there)

    def pull_folder(
        self, folder: str | Path, *, skip: Iterable[str] = (), only: Container[str] | None = None
    ) -> list[str]:
        """Download the files of a folder which the mirror lacks or has otherwise; return them.

        A file that has changed here alone is left: it is yet to be pushed. skip: patterns of paths.
        only: the names of files to download; None: all. Raises AlteredError if an object is not
        what was uploaded.
        """
        there = self.objects(folder)
        names = [
            rel
            for rel in there
            if (only is None or Path(rel).name in only)
            and not any(fnmatch.fnmatch(rel, pattern) for pattern in skip)
        ]
        return self._pull(names, there)

    def has_file(self, file: str | Path) -> bool:
        """Whether the bucket has a file."""
        return self._info(self._rel(file)) is not None

    def pull_file(self, file: str | Path) -> bool:
        """Download a file if the bucket has another one than the mirror; return whether it has one.

        A file that has changed here alone is left. Raises AlteredError.
        """
        rel = self._rel(file)
        there = self._info(rel)
        if there is not None:
            self._pull_file(rel, there)
        return there is not None

    def one_at_a_time(self) -> AbstractContextManager[Any]:
        """Return what keeps the processes of one machine from downloading the same twice."""
        return local_lock(self.mirror / "pull.lock")

    def delete(self, file: str | Path) -> None:
        """Delete an object if it is there, so that no pull brings the file back."""
        rel = self._rel(file)
        self.bucket.delete(self.key(rel))
        self.notes.forget(rel)

    # Results

    def push_results(self) -> list[str]:
        """Upload all finished runs that the bucket lacks; return their files.

        For what an earlier run could not upload. A run without done.json is left to its own
        trial.
        """
        there = self.objects("runs")
        finished = sorted((self.mirror / "runs").glob("*/done.json"))
        runs = [self._rel(path.parent) for path in finished if self._rel(path) not in there]
        return [rel for run in runs for rel in self._push_run(run, there)]

    def pull_results(self) -> list[str]:
        """Download what tables, status and reports read, but no checkpoints; return the files.

        What a process on this machine works at is left alone: its files here are the newer ones.
        """
        skip = (CHECKPOINTS, *(f"{folder}/*" for folder in self._at_work()))
        return [rel for folder in RESULT_FOLDERS for rel in self.pull_folder(folder, skip=skip)]

    def push_run(self, run_id: str) -> list[str]:
        """Upload a run; delete from the bucket a failure that no longer holds."""
        folder = f"runs/{run_id}"
        return self._push_run(folder, self.objects(folder))

    def push_training(self, folder: str | Path) -> None:
        """Upload a training as it is: records first, so that no checkpoint lacks its epochs.

        Of the checkpoints, the bucket keeps the newest KEPT_CHECKPOINTS.
        """
        there = self.objects(folder)
        names = [rel for rel in self._files(folder) if self._is_of_training(rel, folder)]
        for rel in sorted(names, key=lambda rel: (_is_marker(rel), _is_checkpoint(rel), rel)):
            self._push_file(rel, there.get(rel))
        checkpoints = sorted(filter(_is_checkpoint, {*names, *there}))
        for rel in checkpoints[:-KEPT_CHECKPOINTS]:
            self.delete(rel)

    def pull_training(self, folder: str | Path) -> None:
        """Bring a training here: records, and checkpoints if the bucket's newest is at least ours.

        Checkpoints which are altered or cut are left out, with a warning.
        """
        there = self.objects(folder)
        checkpoints = sorted(filter(_is_checkpoint, there))
        own = sorted(filter(_is_checkpoint, self._files(folder)))
        if not own or (checkpoints and own[-1] <= checkpoints[-1]):
            for rel in reversed(checkpoints[-KEPT_CHECKPOINTS:]):
                try:
                    self._pull_file(rel, there[rel])
                except AlteredError as error:
                    logger.warning("%s; falling back to the checkpoint before it", error)
        records = [
            rel for rel in there if self._is_of_training(rel, folder) and not _is_checkpoint(rel)
        ]
        self._pull(records, there)

    def take_over_training(self, folder: str | Path, checkpoints: Sequence[str]) -> None:
        """Make this machine's checkpoints those of the first rank, which has uploaded them.

        checkpoints: their file names. Others here, from an attempt of which the first rank knows
        nothing, are deleted: the ranks would go on from different epochs.
        """
        rel = self._rel(folder)
        for path in (self.mirror / rel / "checkpoints").glob("epoch_*.pt"):
            if path.name not in checkpoints:
                path.unlink(missing_ok=True)
        there = self.objects(rel)
        names = [name for name in there if self._is_of_training(name, rel)]
        self._pull(
            [name for name in names if not _is_checkpoint(name) or Path(name).name in checkpoints],
            there,
        )

    # One file, several files

    def _rel(self, path: str | Path) -> str:
        return path if isinstance(path, str) else path.relative_to(self.mirror).as_posix()

    def _info(self, rel: str) -> ObjectInfo | None:
        key = self.key(rel)
        return next((info for info in self.bucket.objects(key) if info.key == key), None)

    def _files(self, folder: str | Path) -> list[str]:
        """Return the files of the mirror's folder that belong into the bucket."""
        paths = (path for path in (self.mirror / folder).rglob("*") if path.is_file())
        return [self._rel(path) for path in paths if _is_copied(path.name)]

    def _is_of_training(self, rel: str, folder: str | Path) -> bool:
        inner = rel.removeprefix(self._rel(folder) + "/")
        return inner.rpartition("/")[0] in TRAINING_PARTS

    def _push(self, names: Iterable[str], there: Mapping[str, ObjectInfo]) -> list[str]:
        return self._in_order(names, lambda rel: self._push_file(rel, there.get(rel)))

    def _pull(self, names: Iterable[str], there: Mapping[str, ObjectInfo]) -> list[str]:
        copied = [rel for rel in names if _is_copied(Path(rel).name)]
        return self._in_order(copied, lambda rel: self._pull_file(rel, there[rel]))

    def _push_run(self, folder: str, there: Mapping[str, ObjectInfo]) -> list[str]:
        pushed = self._push(self._files(folder), there)
        failure = f"{folder}/failure.json"
        if failure in there and not (self.mirror / failure).exists():
            self.delete(failure)
        return pushed

    def _push_file(self, rel: str, there: ObjectInfo | None) -> bool:
        """Upload a file unless the bucket has it; return whether it was uploaded.

        there: its object as just listed; None: there is none.
        """
        path = self.mirror / rel
        if there and self.notes.get(rel) == _state(path, there.etag):
            return False
        state = _state(path, "")  # as it is before it is read
        self.notes.set(rel, state._replace(etag=self.bucket.put_file(self.key(rel), path)))
        return True

    def _pull_file(self, rel: str, there: ObjectInfo) -> bool:
        """Download an object unless the file was equal to it; return whether it was downloaded."""
        path, note = self.mirror / rel, self.notes.get(rel)
        if note and note.etag == there.etag and path.exists():
            return False  # at most, the file has changed since
        partial = path.with_name(f"{path.name}.partial{os.getpid()}-{uuid.uuid4().hex[:8]}")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                info = self.bucket.get_file(
                    self.key(rel), lambda chunks, info: self._write(partial, chunks, info)
                )
                if info is None:
                    return False  # deleted since it was listed
                state = _state(partial, info.etag)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        self.notes.set(rel, state)
        return True

    def _write(self, path: Path, chunks: Iterator[bytes], info: ObjectInfo) -> ObjectInfo:
        """Write what comes of an object. Raises CutError or AlteredError if it is not that."""
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if size != info.size:
            raise CutError(f"{size} of {info.size} bytes arrived")
        if digest.hexdigest() != info.sha256:
            raise AlteredError(
                f"{self.bucket.url(info.key)}: altered or cut, or not uploaded by this program "
                f"({size} bytes, SHA-256 {digest.hexdigest()[:12]}, expected "
                f"{(info.sha256 or 'none is noted')[:13]}); delete the object to do its stage "
                "again, or upload the right file with this program"
            )
        if info.mtime:
            os.utime(path, (info.mtime, info.mtime))
        return info

    def _in_order(self, names: Iterable[str], work: Callable[[str], bool]) -> list[str]:
        """Copy files, several at a time, then the markers; return those that were copied."""
        names = sorted(names)
        data = [rel for rel in names if not _is_marker(rel)]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            copied = list(pool.map(work, data))
        markers = sorted(set(names) - set(data), key=lambda rel: MARKERS.index(Path(rel).name))
        copied += [work(rel) for rel in markers]
        return [rel for rel, done in zip([*data, *markers], copied, strict=True) if done]

    def _at_work(self) -> list[str]:
        """Return the folders in which a process on this machine works."""
        busy = []
        for room, lock in AT_WORK.items():
            for path in (self.mirror / room).glob(f"*/{lock}"):  # an ended process leaves it too
                if (path.parent / "done.json").exists():
                    continue
                try:
                    with local_lock(path).acquire(timeout=0):
                        pass
                except Timeout:
                    busy.append(self._rel(path.parent))
        return busy


class _State(NamedTuple):
    """A file, and the object to which it is equal; the same as long as nobody writes either."""

    size: int
    mtime_ns: int
    etag: str


class _Notes:
    """To which object each file was last found equal."""

    def __init__(self, mirror: Path) -> None:
        self.folder = mirror / ".synced"

    def get(self, rel: str) -> _State | None:
        """Return what is noted of a file, or None; a note that is cut counts as none."""
        try:
            return _State(**json.loads((self.folder / rel).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def set(self, rel: str, state: _State) -> None:
        """Replace a file's note."""
        path = self.folder / rel
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.partial{os.getpid()}-{uuid.uuid4().hex[:8]}")
            try:
                partial.write_text(json.dumps(state._asdict()))
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def forget(self, rel: str) -> None:
        """Delete a file's note."""
        (self.folder / rel).unlink(missing_ok=True)


def _is_copied(name: str) -> bool:
    return not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_COPIED)


def _is_marker(rel: str) -> bool:
    return Path(rel).name in MARKERS


def _is_checkpoint(rel: str) -> bool:
    path = Path(rel)
    return path.parent.name == "checkpoints" and path.match("epoch_*.pt")


def _state(path: Path, etag: str) -> _State:
    stat = path.stat()
    return _State(stat.st_size, stat.st_mtime_ns, etag)
