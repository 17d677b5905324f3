"""A training by two ranks, of which one may kill itself. Light to import, as each rank does."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from wsss.data.voc import VocDataset
from wsss.training.cam import build_cam_net, cam_training
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.execution import Execution
from wsss.training.loop import Reading
from wsss.training.process import Process


def train_on_two(item: dict[str, Any], process: Process) -> Iterator[dict[str, float]]:
    """A loop for Ray Train, in which one rank kills itself once within the second epoch."""
    config, folder = item["config"], Path(item["folder"])
    samples = VocDataset(Path(item["data"])).samples("train_aug")
    model = build_cam_net(config, samples, 20)
    training = cam_training(
        model,
        config,
        samples,
        process=replace(process, execution=Execution(checkpoint_minutes=1e-9)),  # after every step
        checkpoints=CheckpointFolder(folder / "checkpoints"),
    )
    (folder / f"started_{process.rank}_{training.iteration}").touch()

    once = folder / "killed"
    for found in training.run():
        if isinstance(found, Reading):
            if item["kill"] and process.rank == 1 and found.iteration == 7 and not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            (folder / f"losses_{found.epoch}").write_text(str(found.means))
            yield {"epoch": float(found.epoch)}
    if process.is_first:
        torch.save(model.state_dict(), folder / "weights.pt")


def unbroken_rank(rank: int, item: dict[str, Any]) -> None:
    """One of two ranks without Ray."""
    torch.set_num_threads(1)
    rendezvous = (item["folder"] / "rendezvous").as_uri()
    dist.init_process_group("gloo", rendezvous, rank=rank, world_size=2)
    list(train_on_two(item, Process(rank, 2)))
    dist.destroy_process_group()
