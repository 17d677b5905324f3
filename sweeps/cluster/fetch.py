"""Copies the results of a cluster's store to a local one.

The cluster's own store comes as one archive through the job server (see jobs_export): that needs
the tunnel and the token which every other command needs, and no SSH as for `ray rsync-down`. A
bucket which this machine reaches is read directly, and needs no cluster any more.
"""

import hashlib
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from sweeps.cluster.connection import Connection, JobError
from sweeps.cluster.export import READY
from sweeps.cluster.tool import printed, start_tool, wait_for
from sweeps.store.remote import CHECKPOINTS, RESULT_FOLDERS, Remote
from sweeps.store.store import StoreError

FINISHED = {"runs": "done.json", "cams": "done.json"}
"""Folder of results -> the file that says that one is finished; it is never replaced."""


class Fetched(NamedTuple):
    """What came."""

    num_files: int
    num_bytes: int
    num_kept: int
    """Files left as they are, since the local store had that result already."""


def fetch(
    connection: Connection,
    target: Path,
    *,
    root: Path,
    store: str | None,
    python: str,
    checkpoints: bool,
) -> Fetched:
    """Download the results of the store on the head into the local store `target`.

    store: path on the head; None: the cluster's WSSS_STORE, folder or bucket. Raises JobError if
    the job fails, or if the archive does not arrive as it was sent.
    """
    arguments = ["sweeps.cluster.export", *(["--checkpoints"] if checkpoints else [])]
    job_id = start_tool(connection, arguments, root=root, store=store, python=python)
    try:
        job = wait_for(connection, job_id, line=READY, limit_s=1800)
        text = printed(connection.get_job_logs(job_id))
        ready = [line for line in text.splitlines() if line.startswith(READY)]
        if not ready:
            raise JobError(f"nothing was fetched:\n{text.strip() or job.message}")
        name, size, digest, _ = ready[-1].removeprefix(READY).split()
        with tempfile.TemporaryDirectory(prefix="wsss-fetch-") as folder:
            archive = Path(folder) / "store.tar.gz"
            where = {"node_id": str(job.driver_node_id), "filename": name, "lines": "-1"}
            with archive.open("wb") as file:
                for part in connection.download("/api/v0/logs/file", where):
                    file.write(part)
            _check(archive, int(size), digest)
            return unpack(archive, target)
    finally:
        connection.stop_job(job_id)


def fetch_from_bucket(url: str, target: Path, *, checkpoints: bool) -> Fetched:
    """Download the results in s3://bucket/prefix into the local store `target`, with our own keys.

    Results that are finished here stay as they are. Raises StoreError if the bucket cannot be read
    or holds no results.
    """
    remote = Remote(url, target.absolute())
    there = [rel for folder in RESULT_FOLDERS for rel in remote.objects(folder)]
    if not there:
        raise StoreError(f"{url}: no results in it; name the sweep's own store with --store")
    have = _finished(target)
    skip = [f"{folder}/*" for folder in have] + ([] if checkpoints else [CHECKPOINTS])
    came = [rel for folder in RESULT_FOLDERS for rel in remote.pull_folder(folder, skip=skip)]
    num_kept = sum("/".join(rel.split("/")[:2]) in have for rel in there)
    return Fetched(len(came), sum((target / rel).stat().st_size for rel in came), num_kept)


def unpack(archive: Path, target: Path) -> Fetched:
    """Unpack an archive of results into a store, each file by rename.

    Results that are finished here stay as they are. Raises tarfile.FilterError for a name or link
    that leads out of the store.
    """
    target.mkdir(parents=True, exist_ok=True)
    have = _finished(target)
    done, kept, num_bytes = 0, 0, 0
    with (
        tarfile.open(archive) as tar,
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=target) as folder,
    ):
        markers = set(FINISHED.values())
        members = sorted(tar.getmembers(), key=lambda member: Path(member.name).name in markers)
        for member in members:  # what says that a result is finished comes last
            if "/".join(member.name.split("/")[:2]) in have:
                kept += 1
                continue
            safe = tarfile.data_filter(member, folder)
            tar.extract(safe, folder, filter="data")
            final = target / safe.name
            final.parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / safe.name).replace(final)
            done, num_bytes = done + 1, num_bytes + member.size
    return Fetched(done, num_bytes, kept)


def _finished(target: Path) -> set[str]:
    """Return the folders of results that are finished in the local store."""
    return {
        f"{kind}/{path.parent.name}"
        for kind, last in FINISHED.items()
        for path in target.glob(f"{kind}/*/{last}")
    }


def _check(archive: Path, size: int, digest: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise JobError(
            f"the archive came damaged: {archive.stat().st_size} of {size} bytes, SHA-256 "
            f"{found[:12]}, not {digest[:12]}; give the command again"
        )
