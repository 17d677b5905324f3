"""Copies of whole files between the folder on this machine (the mirror) and a bucket.

All code reads and writes the mirror; what is finished goes to s3://bucket/prefix/<same path>. An
object carries the SHA-256 of its file, and only a download that agrees with it is ever believed.
`<mirror>/.synced/<path>` notes with which object a file was last found equal, so that nothing goes
up or down twice, and so that one knows which of the two has changed since.
"""

import fnmatch
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sweeps.store.bucket import Bucket, ObjectInfo
from sweeps.store.errors import AlteredError, CutError, StoreError, disk_errors

NUM_THREADS = 8
"""Transfers at a time: small objects wait for answers more than for bytes."""

NOT_COPIED = ("*.lock", "*.partial*", "*.broken", ".*")
"""Names of files which mean something on one machine alone."""

MARKERS = ("done.json",)
"""Files which say that a folder is finished: they are copied after all others, in this order."""

Merge = Callable[[bytes, bytes], bytes]
"""(the remote content, the local content) -> what both shall be, where both have changed."""


class Remote:
    """A store's place in a bucket, and its mirror on this machine. It can be pickled."""

    def __init__(self, url: str, mirror: Path) -> None:
        self.url, self.mirror = url.rstrip("/"), mirror
        scheme, _, rest = self.url.partition("://")
        name, _, prefix = rest.partition("/")
        if scheme != "s3" or not name:
            raise StoreError(f"{url}: not an object store; write s3://bucket/prefix")
        self.bucket = Bucket(name)
        self.prefix = f"{prefix}/" if prefix else ""

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

    def objects(self, folder: str) -> dict[str, ObjectInfo]:
        """Return the objects of a folder and all below it, by path relative to the store."""
        start = self.key(folder) + "/"
        found = self.bucket.objects(start)
        return {info.key.removeprefix(self.prefix): info for info in found}

    def key(self, rel: str) -> str:
        """Return the key of a path."""
        return self.prefix + rel

    def push_folder(self, folder: str, *, only: Container[str] | None = None) -> list[str]:
        """Upload the files of a folder which the bucket lacks or has otherwise; return them.

        Files which say that the folder is finished come last. only: names of files; None: all.
        Raises StoreError after some tries.
        """
        there = self.objects(folder)
        names = [rel for rel in self.files(folder) if only is None or Path(rel).name in only]
        return self._in_order(names, lambda rel: self.push_file(rel, there.get(rel)))

    def pull_folder(
        self, folder: str, *, skip: Iterable[str] = (), only: Container[str] | None = None,
        merges: Mapping[str, Merge] | None = None,
    ) -> list[str]:  # fmt: skip
        """Download the files of a folder which the mirror lacks or has otherwise; return them.

        A file that has changed here alone is left: it is yet to be pushed. skip: patterns of paths.
        only: names of files; None: all. merges: by file name, as `pull_file` takes it.
        Raises AlteredError if an object is not what was uploaded, StoreError after some tries.
        """
        there = self.objects(folder)
        names = [rel for rel in there if only is None or Path(rel).name in only]
        names = [rel for rel in names if not any(fnmatch.fnmatch(rel, p) for p in skip)]

        def pull(rel: str) -> bool:
            merge = (merges or {}).get(rel.rpartition("/")[2])
            return self.pull_file(rel, there[rel], merge=merge)

        return self._in_order([rel for rel in names if is_copied(Path(rel).name)], pull)

    def files(self, folder: str) -> list[str]:
        """Return the files of the mirror's folder which belong into the bucket."""
        paths = (path for path in (self.mirror / folder).rglob("*") if path.is_file())
        return [path.relative_to(self.mirror).as_posix() for path in paths if is_copied(path.name)]

    def push_file(self, rel: str, there: ObjectInfo | None = None) -> bool:
        """Upload a file unless the bucket has it already; return whether it was uploaded.

        there: its object as just listed; None: there is none.
        """
        path = self.mirror / rel
        if there and self._note(rel) == _state(path, there.etag):
            return False
        sha256, state = _sha256(path), _state(path, "")
        head = self.bucket.head(self.key(rel)) if there else None
        uploaded = head is None or head.sha256 != sha256 or head.size != path.stat().st_size
        info = self.bucket.put_file(self.key(rel), path, sha256) if uploaded else head
        assert info is not None
        self._write_note(rel, state | {"etag": info.etag})  # as the file was before it was read
        return uploaded

    def pull_file(self, rel: str, there: ObjectInfo, *, merge: Merge | None = None) -> bool:
        """Download an object unless the mirror has it; return whether it was downloaded.

        A file that has changed here, and not in the bucket, is left. Where both have changed, the
        bucket's holds, or what `merge` makes of the two. Raises AlteredError.
        """
        path, note = self.mirror / rel, self._note(rel)
        if path.exists():
            if note and note["etag"] == there.etag:
                return False  # the same object as ever: at most, the file has changed
            head = self.bucket.head(self.key(rel))
            if head and head.sha256 == _sha256(path):
                self._write_note(rel, _state(path, head.etag))
                return False
        changed_here = path.exists() and (not note or _state(path, note["etag"]) != note)
        return self._download(rel, merge if changed_here else None)

    def delete(self, rel: str) -> None:
        """Delete an object, and what is noted of it."""
        self.bucket.delete(self.key(rel))
        self._note_path(rel).unlink(missing_ok=True)

    def _download(self, rel: str, merge: Merge | None) -> bool:
        path = self.mirror / rel
        partial = path.with_name(f"{path.name}.partial{os.getpid()}-{uuid.uuid4().hex[:8]}")

        def write(chunks: Iterator[bytes], info: ObjectInfo) -> ObjectInfo:
            digest, size = hashlib.sha256(), 0
            with partial.open("wb") as file:
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
            return info

        try:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                info = self.bucket.get_file(self.key(rel), write)
                if info is None:
                    return False  # deleted since it was listed
                if merge:
                    partial.write_bytes(merge(partial.read_bytes(), path.read_bytes()))
                if info.mtime:
                    os.utime(partial, (info.mtime, info.mtime))
                state = _state(partial, info.etag)
                partial.replace(path)
                if not merge:  # what was merged is yet to be pushed
                    self._write_note(rel, state)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def _in_order(self, names: Iterable[str], work: Callable[[str], bool]) -> list[str]:
        """Copy files, several at a time, then the markers; return those that were copied."""
        names = sorted(names)
        data = [rel for rel in names if rel.rpartition("/")[2] not in MARKERS]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            copied = list(pool.map(work, data))
        markers = sorted(set(names) - set(data), key=lambda rel: MARKERS.index(Path(rel).name))
        copied += [work(rel) for rel in markers]
        return [rel for rel, done in zip([*data, *markers], copied, strict=True) if done]

    def _note_path(self, rel: str) -> Path:
        return self.mirror / ".synced" / rel

    def _note(self, rel: str) -> dict[str, Any] | None:
        try:
            note = json.loads(self._note_path(rel).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return note if isinstance(note, dict) and "etag" in note else None

    def _write_note(self, rel: str, state: dict[str, Any]) -> None:
        path = self._note_path(rel)
        partial = path.with_name(f"{path.name}.partial{os.getpid()}-{uuid.uuid4().hex[:8]}")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_text(json.dumps(state))
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)


def is_copied(name: str) -> bool:
    """Whether a file of this name belongs into the bucket."""
    return not any(fnmatch.fnmatch(name, pattern) for pattern in NOT_COPIED)


def _state(path: Path, etag: str) -> dict[str, Any]:
    """Describe a file such that it is the same as long as nobody writes it."""
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "etag": etag}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
