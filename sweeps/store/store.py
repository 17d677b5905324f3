"""Results on disk: the truth of which MLflow and every table are views.

    <root>/cams/<cam_id>/    config.json  epochs.jsonl  checkpoints/  trained.json
                             warning.json (it was at the label prior for long)
    <root>/runs/<run_id>/    config.json  counts.npz  threshold_curve.png  cam_gallery.png
                             metrics.json (last: the run is finished)  or  failure.json
    <root>/sweeps/<name>/    sweep.json  tracking.json

A file appears whole or not at all, by atomic rename, and a finished stage is never run again.
With s3://bucket/prefix, the folder is a mirror on each machine of what is in the bucket.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.store.errors import StoreError as StoreError  # the name by which others import it
from sweeps.store.errors import disk_errors
from wsss import json_files
from wsss.config import RunConfig
from wsss.identity import canonical_json

if TYPE_CHECKING:  # locks and buckets are for those who write or have one: reading starts fast
    from sweeps.store.lease import Lock
    from sweeps.store.remote import Remote


class CamFolder:
    """One training."""

    def __init__(self, path: Path, remote: "Remote | None" = None) -> None:
        self.path, self.remote = path, remote

    @property
    def checkpoints(self) -> Path:
        """Folder of the training's checkpoints."""
        return self.path / "checkpoints"

    def epochs(self) -> list[dict[str, Any]]:
        """Return the record of each epoch, in order; a repeated epoch counts once."""
        return json_files.read_records(self.path / "epochs.jsonl")

    def add_epoch(self, record: dict[str, Any]) -> None:
        """Append one epoch's record and make sure that it is on disk."""
        path = self.path / "epochs.jsonl"
        with disk_errors(path):
            self.path.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                if file.tell() and not _ends_with_newline(file.name):
                    file.write(b"\n")
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def warn(self, warning: dict[str, Any]) -> None:
        """Keep what the training is warned of: `iteration`, and in words the `message`."""
        write_json(self.path / "warning.json", warning)

    def warning(self) -> str | None:
        """Return in words what the training is warned of, unless it has left the prior since."""
        found = read_json(self.path / "warning.json")
        if found is None or any(_left_the_prior(e, found["iteration"]) for e in self.epochs()):
            return None
        return str(found["message"])

    def clear_warning(self) -> None:
        """Forget a warning, as of a training that starts anew."""
        _forget(self.path / "warning.json", self.remote)

    def trained(self) -> dict[str, Any] | None:
        """Return the summary of the finished training, or None."""
        return read_json(self.path / "trained.json")

    def lock(self, *, note: str = "") -> "Lock":
        """Return the lock of the one process that trains this; it ends with the process.

        note: for others to read, where it is a lease in a bucket.
        """
        name = f"leases/cams/{self.path.name}"
        return _lock(self.path / "training.lock", self.remote, name, note=note)


class RunFolder:
    """One scored training."""

    def __init__(self, path: Path, remote: "Remote | None" = None) -> None:
        self.path, self.remote = path, remote

    def metrics(self) -> dict[str, Any] | None:
        """Return the figures of a finished run, or None."""
        return read_json(self.path / "metrics.json")

    def failure(self) -> dict[str, Any] | None:
        """Return why the run failed ({kind, message, ...}), or None."""
        return None if self.metrics() else read_json(self.path / "failure.json")

    def clear_failure(self) -> None:
        """Forget a failure, so that the run may be tried again."""
        _forget(self.path / "failure.json", self.remote)


class Store:
    """The folders of trainings, runs and sweeps under one root.

    remote: the place in a bucket which the root mirrors; None: the root is all there is.
    """

    def __init__(self, root: Path, remote: "Remote | None" = None) -> None:
        self.root, self.remote = root.absolute(), remote

    def cam(self, cam_id: str) -> CamFolder:
        """Return the folder of a training."""
        return CamFolder(self.root / "cams" / cam_id, self.remote)

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self.root / "runs" / run_id, self.remote)

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep."""
        return self.root / "sweeps" / name

    def driver_lock(self, name: str) -> "Lock":
        """Return the lock of the one process that runs a sweep; it ends with the process.

        In a bucket it is a lease, which also holds on other machines.
        """
        return _lock(self.sweep(name) / "driver.lock", self.remote, f"leases/sweeps/{name}")

    def pull_results(self) -> None:
        """Bring here what tables and reports read from the bucket; nothing for a local store."""
        if self.remote:
            self.remote.pull_results()

    def push_results(self) -> None:
        """Upload finished runs which an earlier attempt could not; nothing for a local store."""
        if self.remote:
            self.remote.push_results()

    def push_run(self, run_id: str) -> None:
        """Upload a run's files, as after a failure; nothing for a local store."""
        if self.remote:
            self.remote.push_run(run_id)

    def push_sweep(self, name: str) -> None:
        """Upload a sweep's files; nothing for a local store."""
        if self.remote:
            self.remote.push_folder(f"sweeps/{name}")

    def push_folder(self, path: Path) -> None:
        """Upload any folder under the root, such as a stage's; nothing for a local store."""
        if self.remote:
            self.remote.push_folder(path.relative_to(self.root).as_posix())

    def pull_folder(self, path: Path) -> None:
        """Download any folder under the root; nothing for a local store."""
        if self.remote:
            self.remote.pull_folder(path.relative_to(self.root).as_posix())

    @property
    def artifact_location(self) -> str:
        """URI under which MLflow shall keep artifacts, where no server decides it."""
        if self.remote:
            return f"{self.remote.url}/mlartifacts"
        return (self.root / "mlartifacts").as_uri()

    def sweep_names(self) -> list[str]:
        """Return the sweeps in the store, the one changed last at the end."""
        paths = list((self.root / "sweeps").glob("*/sweep.json"))
        return [path.parent.name for path in sorted(paths, key=lambda path: path.stat().st_mtime)]

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written under the root, or into the bucket."""
        probe = self.root / f".probe{os.getpid()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            option = "WSSS_MIRROR" if self.remote else "--store"
            raise StoreError(
                f"{self.root}: not writable ({error.strerror}); give another folder with {option}"
            ) from None
        if self.remote:
            self.remote.check_writable()


def open_store(place: str | Path) -> Store:
    """Return the store at a folder or at s3://bucket/prefix: the one setting of where things are.

    A bucket's mirror is WSSS_MIRROR, or ~/.cache/wsss/<digest of the URL>. Raises StoreError for
    any other kind of URL.
    """
    text = str(place)
    if "://" not in text:
        if text.startswith("s3:"):  # s3://bucket as a Path
            raise StoreError(f"{text}: not an object store; write s3://bucket/prefix")
        return Store(Path(text))
    from sweeps.store.remote import Remote

    url = text.rstrip("/")
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    default = Path.home() / ".cache" / "wsss" / digest
    mirror = Path(os.environ.get("WSSS_MIRROR") or default).absolute()
    return Store(mirror, Remote(url, mirror))


def _lock(path: Path, remote: "Remote | None", name: str, *, note: str = "") -> "Lock":
    """Return the lock of a file, whose folder is made; with a bucket, a lease of this name."""
    from filelock import FileLock

    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    if remote is None:
        return FileLock(path)
    from sweeps.store.lease import Lease

    return Lease(remote, name, FileLock(path), note=note)


def write_json(path: Path, value: Any) -> None:
    """Write JSON by atomic rename; the file is on disk when this returns.

    Raises StoreError if the disk is full.
    """
    with disk_errors(path):
        json_files.write_json(path, value)


def read_json(path: Path) -> Any:
    """Read JSON; None if there is no such file. Raises StoreError if it is not JSON."""
    try:
        return json_files.read_json(path)
    except json_files.BrokenFileError as error:
        raise StoreError(str(error)) from None


def write_config(path: Path, config: RunConfig) -> None:
    """Write a configuration's canonical settings."""
    write_json(path, json.loads(canonical_json(config)))


def _forget(path: Path, remote: "Remote | None") -> None:
    """Delete a file of a training or run, and in the bucket: else the next pull brings it back."""
    if path.exists():
        path.unlink(missing_ok=True)
        if remote:
            remote.delete("/".join(path.parts[-3:]))


def _left_the_prior(epoch: dict[str, Any], iteration: int) -> bool:
    """Whether this epoch's record is of later than `iteration`, and no longer at the prior."""
    end = epoch["epoch"] * len(epoch.get("step_losses", ()))
    return end >= iteration and epoch.get("collapsed") == 0


def _ends_with_newline(path: str) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
