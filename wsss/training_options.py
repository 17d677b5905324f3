"""Options of every command that trains: how it is carried out, which no id depends on."""

from typing import Annotated

import typer

from wsss.training.execution import Execution

LoaderWorkers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="processes that load data, for each that trains; default: by the machine where a GPU "
        "trains, else 0",
    ),
]
MicroBatch = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="images per forward of each process, whose gradients are added up to those of the "
        "batch; auto: as many as its memory allows",
    ),
]
CheckpointMinutes = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="M",
        help="a checkpoint also within an epoch, M minutes after the last one; 0: only between "
        "epochs",
    ),
]


def execution(loader_workers: int | None, micro_batch: str, checkpoint_minutes: float) -> Execution:
    """Return how to train, as these options say. Raises ConfigError for a wrong --micro-batch."""
    from wsss.overrides import ConfigError
    from wsss.printable import quoted

    images = None
    if micro_batch != "auto":
        images = int(micro_batch) if micro_batch.isdecimal() and len(micro_batch) < 10 else 0
        if images < 1:
            raise ConfigError(
                f"--micro-batch {quoted(micro_batch)}: give the number of images per forward, 1 or "
                "more, or auto"
            )
    return Execution(loader_workers, images, checkpoint_minutes)
