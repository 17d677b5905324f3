"""On the head: packs a store's results where the laptop can download them through the job server.

The archive lies among Ray's logs, which the dashboard serves by name to whoever has the token: no
further port, tunnel or SSH is needed. It is deleted when the laptop has it.
"""

import argparse
import hashlib
import os
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

from sweeps.store.store import StoreError, open_store
from wsss.errors import explained

READY = "[sweeps] archive "
KEEP_S = 900.0
"""Longest time that an archive waits for its download."""
NOT_RESULTS = ("ray", "mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlartifacts")
"""Top-level entries of a store that stay on the cluster: Tune's state and MLflow's own files."""


def export(place: str, *, checkpoints: bool) -> None:
    """Pack the store, print READY with file name, bytes and SHA-256, and wait to be stopped.

    place: folder, or s3://bucket/prefix, whose files are first brought to this machine. Raises
    StoreError if there is no store.
    """
    opened = open_store(place)
    opened.pull_results()
    if checkpoints:
        opened.pull_folder(opened.root / "cams")
    store = opened.root
    if not store.is_dir():
        raise StoreError(f"{place}: no store on the head; name the sweep's own with --store")
    archive = _logs_folder() / f"sweeps-fetch-{os.getpid()}-{time.time_ns()}.tar.gz"
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        archive.touch(mode=0o600)
        count = pack(store, archive, checkpoints=checkpoints)
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        print(f"{READY}{archive.name} {archive.stat().st_size} {digest} {count}", flush=True)
        time.sleep(KEEP_S)
    finally:
        archive.unlink(missing_ok=True)


def pack(store: Path, archive: Path, *, checkpoints: bool) -> int:
    """Write a store's result files to a .tar.gz; return how many.

    A running sweep may go on meanwhile: files appear by rename, so each is whole; one that goes
    between listing and reading is left out.
    """
    count = 0
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(store.rglob("*")):
            relative = path.relative_to(store)
            if not _is_result(relative, checkpoints=checkpoints) or not path.is_file():
                continue
            try:
                tar.add(path, arcname=relative.as_posix(), recursive=False)
            except FileNotFoundError:
                continue
            count += 1
    return count


def _is_result(relative: Path, *, checkpoints: bool) -> bool:
    if (
        relative.parts[0] in NOT_RESULTS
        or relative.parts[0].startswith(".")  # notes of a mirror, probes
        or relative.suffix == ".lock"
        or ".partial" in relative.name
    ):
        return False
    return checkpoints or "checkpoints" not in relative.parts


def _logs_folder() -> Path:
    """Return the folder of Ray's logs, in whose session the job's working folder lies."""
    logs = Path.cwd().parents[2] / "logs"  # <session>/runtime_resources/working_dir_files/<package>
    if not (logs / "raylet.out").exists():
        raise StoreError(f"{logs}: no logs of Ray; this runs as a job only, see `sweeps fetch`")
    return logs


def _leave(*_: Any) -> None:
    raise SystemExit(0)


def main() -> None:
    """Pack the store that WSSS_STORE names."""
    parser = argparse.ArgumentParser(
        prog="python -m sweeps.cluster.export", description=main.__doc__
    )
    parser.add_argument("--checkpoints", action="store_true")
    with explained():
        export(os.environ["WSSS_STORE"], checkpoints=parser.parse_args().checkpoints)


if __name__ == "__main__":
    main()
