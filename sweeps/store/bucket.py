"""Objects in a bucket, each call retried a bounded number of times: the only file with boto3.

The endpoint, region and credentials come from where every AWS tool has them: AWS_ENDPOINT_URL,
AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, ~/.aws and so on.
"""

import base64
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sweeps.store.errors import ConditionError, CutError, StoreError, judge

RETRY_DELAYS = (1.0, 4.0, 10.0, 20.0)
"""Seconds before the second to the fifth try: a server may be away for half a minute."""

CONNECT_SECONDS, READ_SECONDS = 10, 60
MAX_CONNECTIONS = 16
SMALL = 1 << 20
"""Bytes up to which a file is sent from memory."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


class ObjectInfo(NamedTuple):
    """What the bucket says about an object."""

    key: str
    size: int
    etag: str
    sha256: str | None = None
    """Of what was uploaded, from the object's metadata; None from a listing."""
    mtime: float | None = None
    """Of the file that was uploaded."""
    age_seconds: float = 0.0
    """Since it was last written, by the server's own clock."""


class Bucket:
    """The objects of one bucket. It can be pickled; every process connects for itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name}

    @functools.cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        session = boto3.session.Session()
        return session.client(
            "s3",
            region_name=session.region_name or "us-east-1",
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=MAX_CONNECTIONS,
                retries={"total_max_attempts": 1},  # `_try` repeats whole calls, and says so
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def put_file(self, key: str, path: Path, sha256: str) -> ObjectInfo:
        """Upload a file of at most 5 GB whole or not at all; return the object as it then is."""

        def put() -> ObjectInfo:
            stat = path.stat()
            # Files go out with `Expect: 100-continue`, and some servers answer that late.
            with path.open("rb") as file:
                self._client.put_object(
                    Bucket=self.name, Key=key,
                    Body=file.read() if stat.st_size <= SMALL else file,
                    Metadata={"sha256": sha256, "mtime": repr(stat.st_mtime)},
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                )  # fmt: skip
            info = self._head(key)  # some servers and proxies take a cut upload for a whole one
            if (info.size, info.sha256) != (stat.st_size, sha256):
                raise CutError(f"{info.size} of {stat.st_size} bytes arrived")
            return info

        return self._try(put, f"upload {self.url(key)}")

    def put_bytes(
        self, key: str, content: bytes, *, only_if_etag: str | None = None, only_new: bool = False
    ) -> str:
        """Write an object and return its ETag. Raises ConditionError if it is not as expected.

        only_new: there must be no such object; only_if_etag: it must still have this ETag.
        """
        condition: dict[str, str] = {}
        if only_new:
            condition["IfNoneMatch"] = "*"
        if only_if_etag is not None:
            condition["IfMatch"] = only_if_etag

        def put() -> str:
            answer = self._client.put_object(Bucket=self.name, Key=key, Body=content, **condition)
            return str(answer["ETag"])

        etag: str | None = self._try(put, f"write {self.url(key)}", absent=None)
        if etag is None:
            raise ConditionError(f"{self.url(key)} is gone")
        return etag

    def get_bytes(self, key: str) -> tuple[bytes, ObjectInfo] | None:
        """Return a small object, or None if there is none."""

        def get() -> tuple[bytes, ObjectInfo]:
            answer = self._client.get_object(Bucket=self.name, Key=key)
            return answer["Body"].read(), _info(key, answer)

        return self._try(get, f"read {self.url(key)}", absent=None)

    def get_file(self, key: str, write: Callable[[Iterator[bytes], ObjectInfo], T]) -> T | None:
        """Give an object's content to `write`, from its start at every try; None if there is none.

        `write` raises CutError if what it got is not whole.
        """

        def get() -> T:
            answer = self._client.get_object(Bucket=self.name, Key=key)
            return write(answer["Body"].iter_chunks(1 << 20), _info(key, answer))

        return self._try(get, f"download {self.url(key)}", absent=None)

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, or None if there is none."""
        return self._try(lambda: self._head(key), f"read {self.url(key)}", absent=None)

    def objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose keys begin with the prefix, by key."""

        def pages() -> list[ObjectInfo]:
            paginator = self._client.get_paginator("list_objects_v2")
            return [
                ObjectInfo(item["Key"], item["Size"], item["ETag"])
                for page in paginator.paginate(Bucket=self.name, Prefix=prefix)
                for item in page.get("Contents", [])
            ]

        return self._try(pages, f"list {self.url(prefix)}")

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        self._try(
            lambda: self._client.delete_object(Bucket=self.name, Key=key),
            f"delete {self.url(key)}", absent=None,
        )  # fmt: skip

    def url(self, key: str) -> str:
        """Return s3://bucket/key."""
        return f"s3://{self.name}/{key}"

    def _head(self, key: str) -> ObjectInfo:
        return _info(key, self._client.head_object(Bucket=self.name, Key=key))

    def _try(self, call: Callable[[], T], purpose: str, **absent: Any) -> T:
        """Call until it succeeds, at most once more than RETRY_DELAYS; then raise StoreError.

        absent: what to return where there is no such object, rather than to raise.
        """
        for delay in (*RETRY_DELAYS, None):
            try:
                return call()
            except Exception as error:
                answer = judge(error)
                if answer == "absent" and "absent" in absent:
                    return absent["absent"]
                if answer == "condition":
                    raise ConditionError(purpose) from None
                if answer == "unknown":
                    raise
                text = " ".join(str(error).split())
                if answer != "passing":
                    raise StoreError(f"cannot {purpose}: {text}; {_REMEDIES[answer]}") from None
                if delay is None:
                    tries = len(RETRY_DELAYS) + 1
                    raise StoreError(
                        f"cannot {purpose}, tried {tries} times: {text}; nothing is lost on this "
                        "machine: give the same command again when the object store answers"
                    ) from None
                logger.warning("cannot %s (%s); next try in %g s", purpose, text, delay)
                time.sleep(delay)
        raise AssertionError


_REMEDIES = {
    "absent": "check the bucket's name and AWS_ENDPOINT_URL",
    "bucket": "create the bucket, or give another with --store",
    "refused": "check the credentials and their rights, AWS_ENDPOINT_URL and the bucket's name",
}


def _info(key: str, answer: dict[str, Any]) -> ObjectInfo:
    metadata, headers = answer["Metadata"], answer["ResponseMetadata"]["HTTPHeaders"]
    written: datetime = answer["LastModified"]
    now = parsedate_to_datetime(headers["date"]) if "date" in headers else written
    mtime = metadata.get("mtime")
    return ObjectInfo(
        key, answer["ContentLength"], answer["ETag"], metadata.get("sha256"),
        float(mtime) if mtime else None, (now - written).total_seconds(),
    )  # fmt: skip
