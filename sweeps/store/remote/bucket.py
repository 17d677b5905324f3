"""The objects of a bucket, by boto3. Every call is retried while the server is unreachable.

Endpoint, region and credentials are found as by every AWS tool: AWS_ENDPOINT_URL,
AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, ~/.aws and so on.
"""

import base64
import functools
import hashlib
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from sweeps.store.errors import CutError, StoreError
from wsss.basics.printable import counted
from wsss.basics.waiting import within

MAX_CONNECTIONS = 16
SMALL = 1 << 20
"""Files up to this size in bytes are sent from memory."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Times:
    """How long a bucket is waited for, and how a lease in it is kept; in seconds."""

    retry_delays: tuple[float, ...] = (1.0, 4.0, 10.0, 20.0)
    """Before the second to the fifth try, so that a server may be away for half a minute.

    boto3's standard retries do not do this. Their waits are random: 5 tries end after at most 14 s,
    and 10 tries end before 30 s in 2 % of cases. After a long outage their quota is empty, and the
    next call is not retried at all. They cover neither a download that is cut nor a short upload.
    """
    connect: float = 10.0
    read: float = 60.0
    first_answer: float = 10.0
    """Before a command's first answer, when nothing is at work, a try ends after this long, and no
    new one begins."""
    beat: float = 10.0
    """Between two heartbeats of a lease."""
    stale: float = 60.0
    """Age at which a lease counts as abandoned: several heartbeats may be late."""
    poll: float = 2.0
    """Between two tries to take a lease that somebody else holds."""


class ObjectInfo(NamedTuple):
    """What the bucket says about an object."""

    key: str
    size: int
    """In bytes."""
    etag: str
    """Changes whenever the object gets other content."""
    sha256: str | None = None
    """Of the uploaded file, from the object's metadata; None from a listing."""
    mtime: float | None = None
    """Modification time of the uploaded file; None from a listing."""
    age_seconds: float = 0.0
    """Time since the object was written, by the server's clock; 0 from a listing."""


@functools.cache
def _client(endpoint: str | None, times: Times) -> Any:
    """Return a process's connection to a server; endpoint: None for AWS itself."""
    import boto3
    from botocore.config import Config

    if endpoint and not re.match("https?://.", endpoint):
        raise StoreError(
            f"AWS_ENDPOINT_URL={endpoint}: no address; write http://HOST:PORT or https://HOST"
        )
    session = boto3.session.Session()
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        config=Config(
            connect_timeout=times.connect,
            read_timeout=times.read,
            max_pool_connections=MAX_CONNECTIONS,
            retries={"total_max_attempts": 1},  # `_try` retries whole calls, and logs it
            s3={"addressing_style": "path" if endpoint else "auto"},
        ),
    )


@dataclass
class Bucket:
    """The objects of one bucket."""

    name: str
    times: Times

    @property
    def _client(self) -> Any:
        environ = os.environ
        endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        return _client(endpoint, self.times)

    def put_file(self, key: str, path: Path) -> str:
        """Upload a file of at most 5 GB as a whole; return the object's ETag."""

        def put() -> str:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                sha256 = hashlib.file_digest(file, "sha256")
                file.seek(0)
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
                file.seek(0)
                # Open files are sent with `Expect: 100-continue`, which some servers answer late.
                answer = self._client.put_object(
                    Bucket=self.name,
                    Key=key,
                    Body=file.read() if stat.st_size <= SMALL else file,
                    Metadata={"sha256": sha256.hexdigest(), "mtime": repr(stat.st_mtime)},
                    ChecksumSHA256=base64.b64encode(sha256.digest()).decode(),
                )
            if answer["ETag"].strip('"') != md5.hexdigest():
                # Encrypted, or cut: some servers and proxies accept a cut upload as complete.
                size = self._client.head_object(Bucket=self.name, Key=key)["ContentLength"]
                if size != stat.st_size:
                    raise CutError(f"{size} of {stat.st_size} bytes arrived")
            return str(answer["ETag"])

        return self._try(put, f"upload {self.url(key)}")

    def put_bytes(self, key: str, content: bytes, **condition: str) -> str | None:
        """Write an object and return its ETag; None, and nothing is written, if it is not as told.

        condition: IfNoneMatch="*" if there must be no such object, IfMatch for its present ETag.
        """

        def put() -> str:
            answer = self._client.put_object(Bucket=self.name, Key=key, Body=content, **condition)
            return str(answer["ETag"])

        return self._try(put, f"write {self.url(key)}", absent=None)

    def get_file(self, key: str, write: Callable[[Iterator[bytes], ObjectInfo], T]) -> T | None:
        """Pass an object's content to `write`, again at every try; None if there is no object.

        `write` raises CutError if the content is incomplete.
        """

        def get() -> T:
            answer = self._client.get_object(Bucket=self.name, Key=key)
            return write(answer["Body"].iter_chunks(1 << 20), _info(key, answer))

        return self._try(get, f"download {self.url(key)}", absent=None)

    def require_answer(self, prefix: str) -> None:
        """Raise StoreError unless the bucket answers, sooner than other calls do."""
        what, limit = {"Bucket": self.name, "Prefix": prefix, "MaxKeys": 1}, self.times.first_answer
        self._try(
            lambda: within(limit, functools.partial(self._client.list_objects_v2, **what)),
            f"list {self.url(prefix)}",
            limit=limit,
        )

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose keys begin with the prefix, sorted by key."""

        def pages() -> list[ObjectInfo]:
            paginator = self._client.get_paginator("list_objects_v2")
            return [
                ObjectInfo(item["Key"], item["Size"], item["ETag"])
                for page in paginator.paginate(Bucket=self.name, Prefix=prefix)
                for item in page.get("Contents", [])
            ]

        return self._try(pages, f"list {self.url(prefix)}")

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        self._try(
            lambda: self._client.delete_object(Bucket=self.name, Key=key),
            f"delete {self.url(key)}",
            absent=None,
        )

    def url(self, key: str) -> str:
        """Return s3://bucket/key."""
        return f"s3://{self.name}/{key}"

    def _try(
        self, call: Callable[[], T], purpose: str, *, limit: float = math.inf, **absent: Any
    ) -> T:
        """Call until it succeeds, once more than there are retry delays; then raise StoreError.

        limit: seconds after which no new try begins. absent: the value to return if there is no
        such object, or another one; without it, that is an error.
        """
        began = time.monotonic()
        for tries, delay in enumerate((*self.times.retry_delays, None), start=1):
            try:
                return call()
            except Exception as error:
                kind = _kind(error)
                if kind == "absent" and "absent" in absent:
                    return absent["absent"]
                if kind == "unknown":
                    raise
                said = str(error).replace(" (reached max retries: 0)", "")  # those of boto3
                text = " ".join(said.split()) or "no answer in time"
                if kind != "passing":
                    raise StoreError(f"cannot {purpose}: {text}; {_REMEDIES[kind]}") from None
                if delay is None or time.monotonic() - began + delay > limit:
                    raise StoreError(
                        f"cannot {purpose}, tried {counted(tries, 'time')}: {text}; nothing is "
                        "lost on this machine: give the same command again when the object store "
                        "answers"
                    ) from None
                logger.warning("cannot %s (%s); next try in %g s", purpose, text, delay)
                time.sleep(delay)
        raise AssertionError


def _info(key: str, answer: dict[str, Any]) -> ObjectInfo:
    metadata, headers = answer["Metadata"], answer["ResponseMetadata"]["HTTPHeaders"]
    written: datetime = answer["LastModified"]
    now = parsedate_to_datetime(headers["date"]) if "date" in headers else written
    mtime = metadata.get("mtime")
    return ObjectInfo(
        key,
        answer["ContentLength"],
        answer["ETag"],
        metadata.get("sha256"),
        float(mtime) if mtime else None,
        (now - written).total_seconds(),
    )


ErrorKind = Literal["absent", "bucket", "refused", "passing", "unknown"]
"""absent: no such object, or not the one that a write was to replace; bucket: no such bucket;
refused: for good; passing: another try may succeed; unknown: not from the object store."""

_REMEDIES = {
    "absent": "check the bucket's name and AWS_ENDPOINT_URL",
    "bucket": "create the bucket, or give another with --store",
    "refused": (
        "check the credentials and their rights, AWS_ENDPOINT_URL, the bucket's name, and this "
        "machine's clock"
    ),
}

_PASSING_CODES = {
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
"""Refusals after which another try may succeed: mostly, data was cut in transfer."""


def _kind(error: Exception) -> ErrorKind:
    """Return the kind of an error from boto3 or from reading an object's content."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = error.response["Error"].get("Code", "")
        if code in ("NoSuchBucket", "InvalidBucketName"):
            return "bucket"
        if status in (404, 412) or code in ("PreconditionFailed", "ConditionalRequestConflict"):
            return "absent"
        return "passing" if status >= 500 or status == 429 or code in _PASSING_CODES else "refused"
    passing = (
        boto.HTTPClientError,
        boto.ConnectionError,
        boto.IncompleteReadError,
        boto.FlexibleChecksumError,
        CutError,
        ConnectionError,
        TimeoutError,
    )
    from_body = type(error).__module__.startswith("urllib3")
    if isinstance(error, passing) or from_body or type(error).__name__ == "ResponseParserError":
        return "passing"
    return "refused" if isinstance(error, boto.BotoCoreError) else "unknown"
