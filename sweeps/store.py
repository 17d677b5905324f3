"""Results on disk: the truth of which MLflow and every table are views.

    <root>/cams/<cam_id>/    config.json  epochs.jsonl  checkpoints/  trained.json
    <root>/runs/<run_id>/    config.json  counts.npz  threshold_curve.png  cam_gallery.png
                             metrics.json (last: the run is finished)  or  failure.json
    <root>/sweeps/<name>/    sweep.json  tracking.json

A file appears whole or not at all, by atomic rename, and a finished stage is never run again.
"""

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from wsss.config import RunConfig
from wsss.errors import ForeseenError
from wsss.identity import canonical_json


class StoreError(ForeseenError, RuntimeError):
    """The store cannot be used; the message names the path and the remedy."""


class CamFolder:
    """One training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Folder of the training's checkpoints."""
        return self.path / "checkpoints"

    def epochs(self) -> list[dict[str, Any]]:
        """Return the record of each epoch, in order; a repeated epoch counts once."""
        path = self.path / "epochs.jsonl"
        if not path.exists():
            return []
        records: dict[int, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed process
                continue
            records[record["epoch"]] = record
        return [records[epoch] for epoch in sorted(records)]

    def add_epoch(self, record: dict[str, Any]) -> None:
        """Append one epoch's record and make sure that it is on disk."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "epochs.jsonl").open("a+b") as file:
            if file.tell() and not _ends_with_newline(file.name):
                file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def trained(self) -> dict[str, Any] | None:
        """Return the summary of the finished training, or None."""
        return read_json(self.path / "trained.json")

    def lock(self) -> FileLock:
        """Return the lock of the one process that trains here; it ends with the process."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / "training.lock")


class RunFolder:
    """One scored training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def metrics(self) -> dict[str, Any] | None:
        """Return the figures of a finished run, or None."""
        return read_json(self.path / "metrics.json")

    def failure(self) -> dict[str, Any] | None:
        """Return why the run failed ({kind, message, ...}), or None."""
        return None if self.metrics() else read_json(self.path / "failure.json")

    def clear_failure(self) -> None:
        """Forget a failure, so that the run may be tried again."""
        (self.path / "failure.json").unlink(missing_ok=True)


class Store:
    """The folders of trainings, runs and sweeps under one root."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def cam(self, cam_id: str) -> CamFolder:
        """Return the folder of a training."""
        return CamFolder(self.root / "cams" / cam_id)

    def run(self, run_id: str) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self.root / "runs" / run_id)

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep."""
        return self.root / "sweeps" / name

    def driver_lock(self, name: str) -> FileLock:
        """Return the lock of the one process that runs a sweep; it ends with the process."""
        self.sweep(name).mkdir(parents=True, exist_ok=True)
        return FileLock(self.sweep(name) / "driver.lock")

    def sweep_names(self) -> list[str]:
        """Return the sweeps in the store, the one changed last at the end."""
        paths = list((self.root / "sweeps").glob("*/sweep.json"))
        return [path.parent.name for path in sorted(paths, key=lambda path: path.stat().st_mtime)]

    def check_writable(self) -> None:
        """Raise StoreError if nothing can be written under the root."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".probe{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"{self.root}: not writable ({error.strerror}); give another folder with --store"
            ) from None


def write_json(path: Path, value: Any) -> None:
    """Write JSON by atomic rename; the file is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON; None if there is no such file. Raises StoreError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{path}: not JSON ({error}); delete the file to do the stage again"
        ) from None


def write_config(path: Path, config: RunConfig) -> None:
    """Write a configuration's canonical settings."""
    write_json(path, json.loads(canonical_json(config)))


def _ends_with_newline(path: str) -> bool:
    with Path(path).open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
