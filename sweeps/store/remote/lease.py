"""A lock among all machines that use a bucket.

A lease is an object in the bucket with a heartbeat. It is created only if there is none, and
rewritten every few seconds only if it is still the one last written. Its age is the server's Date
minus its Last-Modified, so no two clocks are compared. A holder that died leaves an object that
grows old and is taken over. On the same machine it is taken over at once, as the holder's file lock
ended with its process.
"""

import json
import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from filelock import FileLock, Timeout

from sweeps.store.errors import StoreError
from sweeps.store.remote.bucket import Bucket, ObjectInfo

logger = logging.getLogger(__name__)


class LeaseHeldError(Timeout):
    """Somebody else holds the lease and is alive."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Lease:
    """A lock among all machines, used as a FileLock: `with lease.acquire(timeout=0): ...`.

    key: the object's key in the bucket. machine: gives the id of this machine's mirror. file_lock:
    the lock among the processes of this machine.
    """

    def __init__(
        self, bucket: Bucket, key: str, machine: Callable[[], str], file_lock: FileLock
    ) -> None:
        self.bucket, self.key, self.machine, self.file_lock = bucket, key, machine, file_lock
        self.url, self.times = bucket.url(key), bucket.times
        self.lost = False
        """Whether somebody else may have it: then stop and write nothing more."""
        self.on_lost: Callable[[], None] | None = None
        """Called once, in another thread, if somebody takes the lease over."""
        self._body = {
            "token": uuid.uuid4().hex,
            "host": platform.node(),
            "pid": os.getpid(),
            "machine": "",
        }
        self._beats = 0
        self._etag = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, timeout: float | None = None) -> "Lease":
        """Take the lease within `timeout` seconds (None: wait as long as it takes).

        Raises filelock.Timeout if a process of this machine holds it, LeaseHeldError if another
        machine does, StoreError if the bucket does not answer.
        """
        until = time.monotonic() + (float("inf") if timeout is None else timeout)
        self.file_lock.acquire(timeout=-1 if timeout is None else timeout)
        try:
            self._body["machine"] = self.machine()
            while held := self._try_once():
                if time.monotonic() >= until:
                    raise held
                time.sleep(min(self.times.poll, max(0.0, until - time.monotonic())))
        except BaseException:
            self.file_lock.release()
            raise
        self.lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def release(self) -> None:
        """Release the lease. If the bucket does not let it, that is no error: the work is done."""
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        try:
            if self._own_etag(*self._read()):
                self.bucket.delete(self.key)
        except Exception as error:
            words = _words(error)
            logger.warning("%s: %s; it ends by itself in %.0f s", self.url, words, self.times.stale)
        finally:
            self.file_lock.release()

    def check(self) -> None:
        """Raise StoreError if another process has taken the lease over."""
        if self.lost:
            raise StoreError(
                f"{self.url}: taken over by another process, as this one gave no sign of life for "
                f"{self.times.stale:.0f} s; leave the work to the other one"
            )

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _try_once(self) -> LeaseHeldError | None:
        """Create the object or take it over; if somebody else holds it, return that error."""
        holder, info = self._read()
        etag = self._own_etag(holder, info)
        if info is None:
            etag = self._write(IfNoneMatch="*")
        elif etag is None:
            has_died = holder.get("machine") == self._body["machine"]  # we have its file lock
            if not has_died and info.age_seconds <= self.times.stale:
                return self._held(holder, info.age_seconds)
            logger.warning("%s: left by %s; taken over", self.url, _process(holder))
            etag = self._write(IfMatch=info.etag)
        if etag is None:  # somebody was faster, or the answer was lost
            holder, info = self._read()
            etag = self._own_etag(holder, info)
        if etag is None:
            return self._held(holder, 0.0)
        self._etag = etag
        return None

    def _held(self, holder: dict[str, Any], age_seconds: float) -> LeaseHeldError:
        return LeaseHeldError(
            f"{self.url}: held by {_process(holder)}, last sign of life {age_seconds:.0f} s ago; "
            f"it is free {self.times.stale:.0f} s after the last one"
        )

    def _own_etag(self, holder: dict[str, Any], info: ObjectInfo | None) -> str | None:
        """Return the ETag of a lease that is ours, even if the answer to its writing was lost."""
        return info.etag if info and holder.get("token") == self._body["token"] else None

    def _read(self) -> tuple[dict[str, Any], ObjectInfo | None]:
        """Return what the object says of its holder, and the object; None if there is none."""
        found = self.bucket.get_file(self.key, lambda chunks, info: (b"".join(chunks), info))
        content, info = found or (b"", None)
        try:
            holder = json.loads(content)
        except (ValueError, RecursionError):
            holder = {}
        return holder if isinstance(holder, dict) else {}, info

    def _write(self, **condition: str) -> str | None:
        """Write the object as `put_bytes` does."""
        self._beats += 1  # otherwise the ETag would stay the same
        content = json.dumps(self._body | {"beat": self._beats}).encode()
        return self.bucket.put_bytes(self.key, content, **condition)

    def _keep(self) -> None:
        """Rewrite the object until it is released or taken over.

        No error ends this: the next try may succeed, and a lease that nobody renews is taken over
        while its holder works.
        """
        while not self._stop.wait(self.times.beat):
            try:
                etag = self._write(IfMatch=self._etag) or self._own_etag(*self._read())
            except Exception as error:
                logger.warning("%s: %s; the lease is not renewed", self.url, _words(error))
                continue
            if etag is None:
                self.lost = True
                logger.error("%s: taken over by another process", self.url)
                if self.on_lost:
                    self.on_lost()
                return
            self._etag = etag


def _process(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "an unknown process, as its content is damaged"
    return f"process {holder['pid']} on {holder.get('host')}"


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
