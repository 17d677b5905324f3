"""What can go wrong with a store, on disk or in a bucket, and what a person can do about it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsss.errors import ForeseenError

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

PASSING_CODES = {
    "RequestTimeout", "SlowDown", "Throttling", "BadDigest", "IncompleteBody",
    "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
}  # fmt: skip
"""Refusals which another try may not meet: mostly, that data was cut on the way."""


class StoreError(ForeseenError, RuntimeError):
    """The store cannot be used; the message names the path or URL and the remedy."""


class AlteredError(StoreError):
    """An object in the bucket is not what was uploaded."""


class ConditionError(Exception):
    """A conditional write was refused: the object is not as expected."""


class CutError(Exception):
    """Bytes were lost on the way; another try may succeed."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise StoreError for a disk that is full or read-only; let any other error through.

    path: what was to be written, named if the error does not name a file itself.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise StoreError(
            f"{error.filename or path}: cannot be written ({error.strerror}); free space on that "
            "disk and give the same command again, it goes on from the last checkpoint"
        ) from error


def judge(error: Exception) -> str:
    """Say what an error of boto3 means: absent, condition, bucket, refused, passing or unknown."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = error.response["Error"].get("Code", "")
        if code in ("NoSuchBucket", "InvalidBucketName"):
            return "bucket"
        if code in ("PreconditionFailed", "ConditionalRequestConflict") or status == 412:
            return "condition"
        if status == 404:
            return "absent"
        return "passing" if status >= 500 or status == 429 or code in PASSING_CODES else "refused"
    passing = (
        boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError,
        boto.FlexibleChecksumError, CutError, ConnectionError,
    )  # fmt: skip
    from_body = type(error).__module__.startswith("urllib3")
    if isinstance(error, passing) or from_body or type(error).__name__ == "ResponseParserError":
        return "passing"
    return "refused" if isinstance(error, boto.BotoCoreError) else "unknown"
