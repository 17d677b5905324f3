"""What the stages of a chain share: the task, where things lie, and what is missing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.chain import ChainConfig, ChainFolders
from wsss.data.voc import Sample, VocDataset
from wsss.training.process import Process

Steps = Iterator[tuple[float, float]]
"""(done, total) of a stage."""


@dataclass(frozen=True)
class ChainTask:
    """A chain, and where things lie on this machine."""

    chain: ChainConfig
    store: Path
    data: Path
    weights_file: Path | None
    num_workers: int = 1
    """Processes that refine label maps."""


class ChainWork:
    """A chain on this machine."""

    def __init__(self, task: ChainTask, process: Process) -> None:
        self.task, self.process, self.chain = task, process, task.chain
        self.folders = ChainFolders(task.store, task.chain)
        self.dataset = VocDataset(task.data)
        self.run = task.chain.run
        self.samples = self.dataset.samples(self.run.data.train_split)
        self.num_classes = len(self.dataset.classes)


def without(samples: list[Sample], folder: Path, suffix: str) -> list[Sample]:
    """Return the samples of which the folder has no file yet."""
    there = {path.name for path in folder.glob(f"*{suffix}")}
    return [sample for sample in samples if f"{sample.image_id}{suffix}" not in there]


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a training by epoch; the last of a repeated one counts."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({record["epoch"]: record for record in found}.values())
