"""What the finished trials of a store took: seconds and bytes, read in one pass over it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweeps.plan.states import Metrics, read_metrics
from sweeps.store.store import Store, StoreError, read_json
from wsss.config import RunConfig
from wsss.identity import cam_id


@dataclass(frozen=True)
class Measured:
    """What one finished trial took, in seconds and bytes."""

    config: RunConfig
    epoch: float
    """Seconds per epoch."""
    scoring: float
    """Seconds after training: inference and score."""
    rescoring: float
    """Seconds of a score alone, for a trial which takes another run's counts."""
    cam_bytes: int | None
    """Of its training's folder; None if that is not there any more."""
    run_bytes: int


def read_measured(store: Store, metrics: Metrics | None = None) -> tuple[list[Measured], str, int]:
    """Read the finished trials on one kind of machine: that of the one finished last.

    Returns them with its device and number of processes; ([], "", 0) if none is finished. A run
    whose settings cannot be read, or are of an older version, is no measurement. `metrics` spares
    reading the figures again.
    """
    metrics = read_metrics(store) if metrics is None else metrics
    machines = {name: _machine(found) for name, found in metrics.items()}
    if not machines:
        return [], "", 0
    device, processes = machines[max(machines, key=lambda name: _finished_at(store, name))]
    measured = [
        one
        for name, found in metrics.items()
        if machines[name] == (device, processes) and (one := _measured(store, name, found))
    ]
    return measured, device, processes


def _machine(metrics: dict[str, Any]) -> tuple[str, int]:
    environment = metrics.get("environment", {})
    return environment.get("device", "cpu"), environment.get("processes", 1)


def _finished_at(store: Store, run_id: str) -> int:
    return (store.run(run_id).path / "done.json").stat().st_mtime_ns


def _measured(store: Store, run_id: str, metrics: dict[str, Any]) -> Measured | None:
    try:
        config = RunConfig.model_validate(read_json(store.run(run_id).path / "config.json"))
    except (StoreError, ValidationError):
        return None
    return Measured(
        config=config,
        epoch=metrics["train_seconds"] / config.train.epochs,
        scoring=metrics["inference_seconds"] + metrics["score_seconds"],
        rescoring=metrics["score_seconds"],
        cam_bytes=folder_bytes(store.cam(cam_id(config)).path),
        run_bytes=folder_bytes(store.run(run_id).path) or 0,
    )


def folder_bytes(path: Path) -> int | None:
    """Return the size of all files under a folder, or None if there is no such folder."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path)) or 0
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return None
    return total
