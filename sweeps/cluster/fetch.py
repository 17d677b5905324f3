"""Copies the results of a cluster's store to a local one.

A bucket is read directly, even without a cluster; a folder on the cluster is copied by
`ray rsync-down`, over the SSH connection of `ray up`.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sweeps.cluster.job_address import JobError
from sweeps.plan.states import folder_names
from sweeps.store.errors import StoreError
from sweeps.store.remote.mirror import Remote, folder_of
from sweeps.store.rooms import DONE, RESULTS, RUN_HERE, STAGES
from wsss.basics.files import read_text
from wsss.basics.printable import quoted
from wsss.data.building import alone, temporary

NOT_RESULTS = ("/ray", "/mlflow.db*", "/mlartifacts", "*.lock", "*.partial*", ".*")
"""Patterns of rsync for what is not copied: Tune's state, MLflow's files, locks."""
TRAINED = ("cams", "segmentations")
"""Rooms of trainings, whose checkpoints are fetched only if asked for."""
MAX_CLUSTER_BYTES = 1 << 20
RAY = Path(sys.executable).with_name("ray")


class Fetched(NamedTuple):
    """What was copied."""

    num_files: int
    num_bytes: int
    num_kept: int
    """Files not copied, since the local store had that result already."""


def fetch_from_bucket(url: str, target: Path, *, checkpoints: bool) -> Fetched:
    """Download the results in s3://bucket/prefix into the local store `target`.

    What `_own` names is kept. Raises StoreError if the bucket cannot be read or holds
    no results.
    """
    remote = Remote(url, target.absolute())
    there = [rel for room in RESULTS for rel in remote.objects(room.name)]
    if not there:
        raise StoreError(f"{url}: no results in it; name the sweep's own store with --store")
    have = _own(target, checkpoints=checkpoints)
    came = remote.pull_rooms(have, checkpoints=checkpoints)
    num_kept = sum(folder_of(rel) in have for rel in there)
    return Fetched(len(came), sum((target / rel).stat().st_size for rel in came), num_kept)


def fetch_by_rsync(
    store: str, target: Path, cluster: Path, *, checkpoints: bool, ray: Path = RAY
) -> Fetched:
    """Download the results in a folder on the head into the local store `target`.

    store: absolute path on the head; cluster: the file given to `ray up`. Raises JobError, with
    Ray's message, if `ray rsync-down` fails, DataError if another call copies into that store.
    """
    if not cluster.is_file():
        raise JobError(
            f"{cluster}: no such file; {store} is a folder on the cluster, which is copied by `ray "
            "rsync-down`: give the file of `ray up` with --cluster, from the folder of `ray up`"
        )
    config = _settings_of(cluster)
    config["rsync_exclude"] = [*NOT_RESULTS, *([] if checkpoints else ["checkpoints"])]
    coming = target / ".fetch"
    with alone(coming, "sweeps fetch"), temporary(coming) as folder:
        (folder / "cluster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        (folder / "store").mkdir()
        words = [str(ray), "rsync-down", f"{folder}/cluster.yaml", f"{store}/", f"{folder}/store/"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.splitlines()
            said = [line for line in lines if not line.startswith((" ", "Traceback"))]
            raise JobError("\n".join([f"{store}: `ray rsync-down {cluster}` failed:", *said[-3:]]))
        return take_over(folder / "store", target, checkpoints=checkpoints)


def _settings_of(cluster: Path) -> dict[str, Any]:
    """Read the file given to `ray up`. Raises JobError for another file."""
    try:
        found = yaml.safe_load(read_text(cluster, MAX_CLUSTER_BYTES, JobError))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also for 2001-99-99
        found = str(error).splitlines()[0]
    if not isinstance(found, dict):
        raise JobError(
            f"{cluster}: not a cluster configuration in YAML ({quoted(found)}); give the file of "
            "`ray up` with --cluster"
        )
    return found


def take_over(came: Path, target: Path, *, checkpoints: bool) -> Fetched:
    """Move results into a store, each file by rename, and the marks of finished ones last.

    What `_own` names is kept there.
    """
    have = _own(target, checkpoints=checkpoints)
    moved, kept, num_bytes = 0, 0, 0
    files = (path for path in came.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == DONE):
        relative = path.relative_to(came)
        if folder_of(relative.as_posix()) in have:
            kept += 1
            continue
        num_bytes += path.stat().st_size
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        path.replace(target / relative)
        moved += 1
    return Fetched(moved, num_bytes, kept)


def _own(target: Path, *, checkpoints: bool) -> set[str]:
    """Return the folders of the local store that are never replaced.

    They are finished results, and what was run here: sweeps and searches for which Tune has a
    folder, and headlines that say so. checkpoints: a training without any does not count, as they
    are wanted now.
    """
    finished = {
        f"{room}/{path.parent.name}"
        for room in STAGES
        for path in target.glob(f"{room}/*/{DONE}")
        if not checkpoints or room not in TRAINED or any(path.parent.glob("checkpoints/*"))
    }
    tuned = folder_names(target / "ray")
    run_here = {f"sweeps/{name}" for name in tuned}
    run_here |= {f"searches/{name.removeprefix('search-')}" for name in tuned}
    run_here |= {f"headline/{path.parent.name}" for path in target.glob(f"headline/*/{RUN_HERE}")}
    return finished | run_here
