"""What of a store goes up and down: results for reading, and one training for going on with it.

The newest checkpoint wins; a broken or altered one in the bucket is passed over for the one before.
"""

import json
import logging
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sweeps.store.errors import AlteredError
from sweeps.store.remote import Remote

CHECKPOINTS = "cams/*/checkpoints/*"
KEPT_CHECKPOINTS = 2
"""As wsss/training/checkpoint.py keeps; named here too, because that file loads torch."""
RESULT_FOLDERS = ("cams", "runs", "sweeps", "searches", "headline")

logger = logging.getLogger(__name__)


def pull_results(remote: Remote) -> list[str]:
    """Download what tables, status and reports read: everything but checkpoints; return the files.

    A training in progress on this machine is left alone: its records here are the newer ones.
    """
    skip = (CHECKPOINTS, *(f"cams/{cam_id}/*" for cam_id in _trained_here(remote)))
    return [
        rel
        for folder in RESULT_FOLDERS
        for rel in remote.pull_folder(folder, skip=skip, merges=MERGES)
    ]


def push_results(remote: Remote) -> list[str]:
    """Upload all finished runs and their trainings that the bucket lacks; return the files.

    For what an earlier run could not upload. A run without done.json is left to its own trial.
    """
    there = remote.objects("runs")
    pushed = []
    for path in sorted((remote.mirror / "runs").glob("*/done.json")):
        run = path.parent.relative_to(remote.mirror).as_posix()
        if f"{run}/done.json" not in there:
            pushed += push_run(remote, path.parent.name)
    return pushed


def push_run(remote: Remote, run_id: str) -> list[str]:
    """Upload a run, done.json last; delete a failure that no longer holds."""
    folder = f"runs/{run_id}"
    pushed = remote.push_folder(folder)
    failure = f"{folder}/failure.json"
    if not (remote.mirror / failure).exists() and failure in remote.objects(folder):
        remote.delete(failure)
    return pushed


def pull_training(remote: Remote, training_id: str, *, room: str = "cams") -> None:
    """Bring a training here: records, and checkpoints if the bucket's newest is at least ours.

    room: the store's folder of trainings of this kind. Checkpoints which are altered or cut are
    left out, with a warning. Raises StoreError if the bucket does not answer.
    """
    folder = f"{room}/{training_id}"
    there = remote.objects(folder)
    checkpoints = sorted(rel for rel in there if _is_checkpoint(rel))
    own = sorted(rel for rel in remote.files(folder) if _is_checkpoint(rel))
    if not own or (checkpoints and own[-1] <= checkpoints[-1]):
        for rel in reversed(checkpoints[-KEPT_CHECKPOINTS:]):
            try:
                remote.pull_file(rel, there[rel])
            except AlteredError as error:
                logger.warning("%s; falling back to the checkpoint before it", error)
    remote.pull_folder(folder, skip=(f"{folder}/checkpoints/*", f"{folder}/maps/*"), merges=MERGES)


def push_training(remote: Remote, training_id: str, *, room: str = "cams") -> None:
    """Upload a training as it is: records first, so that no checkpoint lacks its epochs."""
    folder = f"{room}/{training_id}"
    there = remote.objects(folder)
    names = remote.files(folder)
    checkpoints = sorted(rel for rel in names if _is_checkpoint(rel))
    done = [rel for rel in names if rel == f"{folder}/done.json"]
    records = sorted({*names} - {*checkpoints, *done})
    for rel in [*records, *checkpoints, *done]:
        remote.push_file(rel, there.get(rel))
    in_bucket = sorted({rel for rel in there if _is_checkpoint(rel)} | set(checkpoints))
    for rel in in_bucket[:-KEPT_CHECKPOINTS]:
        remote.delete(rel)


def take_over_training(
    remote: Remote, training_id: str, checkpoints: list[str], *, room: str = "cams"
) -> None:
    """Make this machine's checkpoints those of the first rank, which has uploaded them.

    checkpoints: their file names. Others here, from an attempt of which the first rank knows
    nothing, are deleted: the ranks would go on from different epochs.
    """
    folder = remote.mirror / room / training_id / "checkpoints"
    for path in folder.glob("epoch_*.pt"):
        if path.name not in checkpoints:
            path.unlink(missing_ok=True)
    there = remote.objects(f"{room}/{training_id}")
    for rel, info in there.items():
        if not _is_checkpoint(rel) or Path(rel).name in checkpoints:
            remote.pull_file(rel, info)


def merge_epochs(theirs: bytes, ours: bytes) -> bytes:
    """Return the bucket's epochs, then those of ours which come after its last."""
    last = max((record["epoch"] for _, record in _records(theirs)), default=0)
    more = [line for line, record in _records(ours) if record["epoch"] > last]
    start = theirs if not theirs or theirs.endswith(b"\n") else theirs + b"\n"
    return start + b"".join(line + b"\n" for line in more)


def merge_ledgers(theirs: bytes, ours: bytes) -> bytes:
    """Return the bucket's lines, then those of ours which it lacks: each names its session."""
    known = set(theirs.splitlines())
    more = [line for line in ours.splitlines() if line not in known]
    start = theirs if not theirs or theirs.endswith(b"\n") else theirs + b"\n"
    return start + b"".join(line + b"\n" for line in more)


MERGES = {"epochs.jsonl": merge_epochs, "ledger.jsonl": merge_ledgers}


def _trained_here(remote: Remote) -> list[str]:
    """Return the trainings which a process on this machine is at."""
    busy = []
    for holder in (remote.mirror / "cams").glob("*/holder.json"):  # a killed process leaves it too
        try:
            with FileLock(holder.with_name("training.lock")).acquire(timeout=0):
                pass
        except Timeout:
            busy.append(holder.parent.name)
    return busy


def _records(content: bytes) -> list[tuple[bytes, dict[str, Any]]]:
    found = []
    for line in content.splitlines():
        try:
            found.append((line, json.loads(line)))
        except ValueError:  # the last line of a killed process
            continue
    return found


def _is_checkpoint(rel: str) -> bool:
    path = Path(rel)
    return path.parent.name == "checkpoints" and path.match("epoch_*.pt")
