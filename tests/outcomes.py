"""What a trial or a chain in a store came to, without what differs between two runs of it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweeps.plan.chains.chain import ChainConfig
from sweeps.stages.stage import Record
from sweeps.store.store import Folder, Store
from wsss.config import RunConfig
from wsss.identity import cam_id, run_id

EXPLANATORY = {"train_seconds", "inference_seconds", "score_seconds", "environment"}
"""When, how long and where."""


def metrics(store: Store, config: RunConfig) -> dict[str, Any]:
    """Return all that a finished trial has written down."""
    return store.run(run_id(config)).result()


def figures(store: Store, config: RunConfig) -> dict[str, Any]:
    """Return what two runs of one trial have in common."""
    return {k: v for k, v in metrics(store, config).items() if k not in EXPLANATORY}


def step_losses(store: Store, config: RunConfig) -> list[list[float]]:
    """Return the losses of all steps, by epoch."""
    return [record["step_losses"] for record in store.cam(cam_id(config)).epochs()]


def epochs(store: Path) -> dict[str, list[int]]:
    """Return the recorded epochs of each training."""
    return {
        path.name: [record["epoch"] for record in Folder(path).epochs()]
        for path in (store / "cams").glob("*")
    }


def results(store: Path, name: str = "done.json") -> dict[str, dict[str, Any]]:
    """Return the results of each run, or what else was written down by a name."""
    paths = (store / "runs").glob(f"*/{name}")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


class ChainFolders:
    def __init__(self, root: Path, chain: ChainConfig) -> None:
        self.maps = root / "maps" / chain.maps_id
        self.walk = root / "walks" / chain.walk_id
        self.labels = root / "labels" / chain.labels_id
        self.segmentation = root / "segmentations" / chain.segmentation_id
        self.predictions = root / "predictions" / chain.prediction_id


CHAIN = [
    "train CAM",
    "infer CAMs",
    "learn affinity",
    "random walk",
    "write labels",
    "train DeepLab",
    "predict",
]
"""The stages of a chain with a random walk, in order."""


def stages_in(records: Iterable[Record]) -> list[str]:
    """Run the work to its end; return the stages that did something, in order."""
    return list(dict.fromkeys(record.stage.title for record in records))


def pictures(root: Path, chain: ChainConfig, *kinds: str) -> dict[str, bytes]:
    """Return the PNGs of labels or predictions."""
    folders = ChainFolders(root, chain)
    return {
        f"{kind}/{path.name}": path.read_bytes()
        for kind in kinds
        for path in (getattr(folders, kind) / "png").iterdir()
    }
