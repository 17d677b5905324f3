"""The files of a store in a bucket, and their copies in a folder on this machine, the mirror.

All code reads and writes the mirror. A file is uploaded to s3://bucket/prefix/<same path> if the
bucket lacks it or has another version, and downloaded likewise; done.json, which marks a folder as
finished, is copied last. An object carries the SHA-256 of its file, and a download must match it.

Nearly all files are written once. One that changes has one writer at a time, which holds a lock or
lease; the last writer wins. `<mirror>/.synced/<path>` notes which object a file was last equal to:
so nothing is copied twice or read for comparison, and a local change that is not yet uploaded is
not overwritten.
"""

import fnmatch
import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import compress, groupby
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout

from sweeps.store.errors import AlteredError, CutError, StoreError, disk_errors
from sweeps.store.local_lock import local_lock
from sweeps.store.remote.bucket import Bucket, ObjectInfo, Times
from sweeps.store.remote.lease import Lease
from sweeps.store.rooms import DONE, RESULTS
from wsss.basics.files import refuse_pipe, whole_or_absent
from wsss.training.checkpoint_names import KEPT_CHECKPOINTS, is_checkpoint

NUM_THREADS = 8
"""Transfers at a time: small objects are limited by latency, not by bandwidth."""

NOT_COPIED = ("*.lock", "*.partial*", "*.broken", ".*")
"""Names of files that concern one machine only."""

TRAINING_PARTS = ("", "attempts", "epochs", "checkpoints")
"""The subfolders that belong to a training; its maps, for example, do not."""

logger = logging.getLogger(__name__)


class Remote:
    """A store's place in a bucket, and its mirror on this machine. It can be pickled.

    Files and folders are given as a path relative to the store, or as a Path in the mirror.
    All methods that use the bucket raise StoreError if it does not answer for half a minute.
    """

    def __init__(self, url: str, mirror: Path, times: Times | None = None) -> None:
        self.url, self.mirror = url.rstrip("/"), mirror
        scheme, _, rest = self.url.partition("://")
        name, _, prefix = rest.partition("/")
        if scheme != "s3" or not name:
            raise StoreError(f"{url}: not an object store; write s3://bucket/prefix")
        self.bucket = Bucket(name, times or Times())
        self.prefix = f"{prefix}/" if prefix else ""

    def machine(self) -> str:
        """Return this mirror's id; processes with the same id see the same files.

        Raises StoreError if the folder is the mirror of another store.
        """
        path = self.mirror / ".machine"
        if not path.exists():
            with local_lock(self.mirror / "machine.lock"), disk_errors(path):
                if not path.exists():
                    with whole_or_absent(path) as partial:
                        partial.write_text(f"{uuid.uuid4().hex} {self.url}")
        refuse_pipe(path, StoreError)
        text = path.read_text(encoding="utf-8", errors="replace")
        name, _, url = text.partition(" ")  # earlier versions wrote no URL
        if not re.fullmatch("[0-9a-f]{32}", name):  # an empty one would be that of other machines
            raise StoreError(f"{path}: damaged; delete it, and give the same command again")
        if url not in ("", self.url):
            raise StoreError(f"{self.mirror}: the mirror of {url}; set WSSS_MIRROR to another one")
        return name

    def require_answer(self) -> None:
        """Raise StoreError if the bucket does not answer, sooner than other methods do."""
        self.bucket.require_answer(self.prefix)

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written into the bucket."""
        key = self.key(f".probe-{self.machine()}")
        self.bucket.put_bytes(key, b"")
        self.bucket.delete(key)

    def lock(self, name: str, path: Path) -> Lease:
        """Return the lease leases/<name>, which excludes other machines as well as processes here.

        path: a file to lock among the processes of this machine; its folder is created.
        """
        return Lease(self.bucket, self.key(f"leases/{name}"), self.machine, local_lock(path))

    # Files

    def objects(self, folder: str | Path) -> dict[str, ObjectInfo]:
        """Return all objects below a folder, by path relative to the store."""
        found = self.bucket.objects(self.key(self._rel(folder)) + "/")
        return {info.key.removeprefix(self.prefix): info for info in found}

    def key(self, rel: str) -> str:
        """Return the key of a path's object."""
        return self.prefix + rel

    def push_folder(self, folder: str | Path, *, only: Container[str] | None = None) -> list[str]:
        """Upload the files of a folder that are new or changed; return them.

        only: the names of files to upload; None: all. Of each training, the bucket keeps the newest
        KEPT_CHECKPOINTS checkpoints.
        """
        there = self.objects(folder)
        names = [rel for rel in self._files(folder) if only is None or Path(rel).name in only]
        came = self._in_order(names, lambda rel: self._push_file(rel, there.get(rel)))
        checkpoints = sorted(filter(_is_checkpoint, {*came, *there}))
        for _, of_one in groupby(checkpoints, key=lambda rel: Path(rel).parent):
            for rel in list(of_one)[:-KEPT_CHECKPOINTS]:
                self.delete(rel)
        return came

    def pull_folder(self, folder: str | Path, *, only: Container[str] | None = None) -> list[str]:
        """Download the files of a folder that are new or changed in the bucket; return them.

        A file that changed only here is kept: it is yet to be pushed. only: the names of files to
        download; None: all. Raises AlteredError if an object is not what was uploaded.
        """
        there = self.objects(folder)
        names = [rel for rel in there if only is None or Path(rel).name in only]
        return self._pull(names, there)

    def has_file(self, file: str | Path) -> bool:
        """Whether the bucket has a file."""
        return self._info(self._rel(file)) is not None

    def pull_file(self, file: str | Path) -> bool:
        """Download a file if it is new or changed in the bucket; return whether the bucket has it.

        A file that changed only here is kept. Raises AlteredError.
        """
        rel = self._rel(file)
        there = self._info(rel)
        if there is not None:
            self._pull_file(rel, there)
        return there is not None

    def one_at_a_time(self) -> AbstractContextManager[Any]:
        """Return a lock that keeps processes of this machine from downloading a file twice."""
        return local_lock(self.mirror / "pull.lock")

    def delete(self, file: str | Path) -> None:
        """Delete an object if it is there, so that no pull brings the file back."""
        rel = self._rel(file)
        self.bucket.delete(self.key(rel))
        self._note_file(rel).unlink(missing_ok=True)

    # Results

    def pull_results(self) -> list[str]:
        """Download what tables, status and reports read, but no checkpoints; return the files.

        Folders in which a process of this machine works are skipped: their files here are newer.
        Raises StoreError if the folder is the mirror of another store.
        """
        self.machine()
        return self.pull_rooms(self._at_work())

    def pull_rooms(self, kept: Container[str], *, checkpoints: bool = False) -> list[str]:
        """Download what tables, status and reports read; return the files.

        kept: folders, <room>/<id>, that stay as they are here.
        """
        came = list[str]()
        for room in RESULTS:
            there = self.objects(room.name)
            wanted = [rel for rel in there if checkpoints or "/checkpoints/" not in rel]
            came += self._pull((rel for rel in wanted if folder_of(rel) not in kept), there)
        return came

    def pull_training(self, folder: str | Path) -> None:
        """Download a training's records, and checkpoints unless ours are newer than the bucket's.

        Checkpoints that are altered or cut are left out, with a warning.
        """
        there = self.objects(folder)
        checkpoints = sorted(filter(_is_checkpoint, there))
        own = sorted(filter(_is_checkpoint, self._files(folder)))
        if own[-1:] <= checkpoints[-1:]:
            for rel in reversed(checkpoints[-KEPT_CHECKPOINTS:]):
                try:
                    self._pull_file(rel, there[rel])
                except AlteredError as error:
                    logger.warning("%s; falling back to the checkpoint before it", error)
        records = [
            rel for rel in there if self._is_of_training(rel, folder) and not _is_checkpoint(rel)
        ]
        self._pull(records, there)

    # One file, several files

    def _rel(self, path: str | Path) -> str:
        return path if isinstance(path, str) else path.relative_to(self.mirror).as_posix()

    def _info(self, rel: str) -> ObjectInfo | None:
        key = self.key(rel)
        return next((info for info in self.bucket.objects(key) if info.key == key), None)

    def _files(self, folder: str | Path) -> list[str]:
        """Return the files of a folder in the mirror that belong in the bucket."""
        paths = (path for path in (self.mirror / folder).rglob("*") if path.is_file())
        return [self._rel(path) for path in paths if _is_copied(path.name)]

    def _is_of_training(self, rel: str, folder: str | Path) -> bool:
        inner = rel.removeprefix(self._rel(folder) + "/")
        return inner.rpartition("/")[0] in TRAINING_PARTS

    def _pull(self, names: Iterable[str], there: Mapping[str, ObjectInfo]) -> list[str]:
        copied = [rel for rel in names if _is_copied(Path(rel).name)]
        return self._in_order(copied, lambda rel: self._pull_file(rel, there[rel]))

    def _push_file(self, rel: str, there: ObjectInfo | None) -> bool:
        """Upload a file unless the bucket has it; return whether it was uploaded.

        there: its object, as just listed; None: there is none.
        """
        path = self.mirror / rel
        try:
            if there and self._note(rel) == _state(path, there.etag):
                return False
            state = _state(path, "")  # before it is read
            etag = self.bucket.put_file(self.key(rel), path)
        except FileNotFoundError:  # deleted since it was listed
            return False
        self._set_note(rel, state._replace(etag=etag))
        return True

    def _pull_file(self, rel: str, there: ObjectInfo) -> bool:
        """Download an object unless the file was equal to it; return whether it was downloaded."""
        path, note = self.mirror / rel, self._note(rel)
        if note and note.etag == there.etag and path.exists():
            return False  # unchanged in the bucket, whether or not it has changed here
        try:
            with disk_errors(path), whole_or_absent(path) as partial:
                info = self.bucket.get_file(
                    self.key(rel), lambda chunks, info: self._write(partial, chunks, info)
                )
                if info is None:  # a try before may have left a part of it
                    raise FileNotFoundError(rel)
                state = _state(partial, info.etag)
        except FileNotFoundError:  # deleted since it was listed
            return False
        self._set_note(rel, state)
        return True

    def _write(self, path: Path, chunks: Iterator[bytes], info: ObjectInfo) -> ObjectInfo:
        """Write an object's content. Raises CutError or AlteredError if `info` does not match."""
        digest, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        if size != info.size:
            raise CutError(f"{size} of {info.size} bytes arrived")
        if digest.hexdigest() != info.sha256:
            raise AlteredError(
                f"{self.bucket.url(info.key)}: altered or cut, or not uploaded by this program; "
                "delete the object to do its stage again, or upload the right file with it"
            )
        if info.mtime:
            os.utime(path, (info.mtime, info.mtime))
        return info

    def _in_order(self, names: Iterable[str], work: Callable[[str], bool]) -> list[str]:
        """Copy files, several at a time; return those that were copied.

        Checkpoints follow the records of their epochs, and the markers come last.
        """
        copied, names = list[str](), sorted(names, key=lambda rel: (_turn(rel), rel))
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for _, turn in groupby(names, key=_turn):
                given = list(turn)
                copied += compress(given, list(pool.map(work, given)))
        return copied

    def _note_file(self, rel: str) -> Path:
        """Return the file that notes which object a file was last found equal to."""
        return self.mirror / ".synced" / rel

    def _note(self, rel: str) -> "_State | None":
        """Return a file's note, or None; a damaged note counts as none."""
        try:
            return _State(**json.loads(self._note_file(rel).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _set_note(self, rel: str, state: "_State") -> None:
        path = self._note_file(rel)
        with disk_errors(path), whole_or_absent(path) as partial:
            partial.write_text(json.dumps(state._asdict()))

    def _at_work(self) -> set[str]:
        """Return the folders in which a process of this machine works."""
        busy = set[str]()
        for room in RESULTS:
            for path in (self.mirror / room.name).glob(f"*/{room.lock}"):  # outlives its process
                if (path.parent / DONE).exists():
                    continue
                try:
                    with local_lock(path).acquire(timeout=0):
                        pass
                except Timeout:
                    busy.add(self._rel(path.parent))
        return busy


class _State(NamedTuple):
    """A file and the object that it is equal to; unchanged as long as nobody writes either."""

    size: int
    mtime_ns: int
    etag: str


def folder_of(rel: str) -> str:
    """Return the folder of a file of a store: <room>/<id>."""
    return "/".join(rel.split("/")[:2])


def _is_copied(name: str) -> bool:
    return not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_COPIED)


def _turn(rel: str) -> int:
    return 2 if Path(rel).name == DONE else int(_is_checkpoint(rel))


def _is_checkpoint(rel: str) -> bool:
    path = Path(rel)
    return path.parent.name == "checkpoints" and is_checkpoint(path.name)


def _state(path: Path, etag: str) -> _State:
    stat = path.stat()
    return _State(stat.st_size, stat.st_mtime_ns, etag)
