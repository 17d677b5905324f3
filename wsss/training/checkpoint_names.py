"""Names of checkpoints, which sort in the order of progress. Without torch.

`epoch_0003.pt` is written after the third epoch, `epoch_0003_0000123.pt` within the fourth, after
123 iterations of the whole training. Other files, such as somebody's copies, are no checkpoints.
"""

import re
from pathlib import Path, PurePath

from wsss.basics.files import files_in

NAME = re.compile(r"epoch_\d{4}(_\d{7})?\.pt")

KEPT_CHECKPOINTS = 2
"""Number of the newest ones that are kept, here and in a bucket: if the last is broken, the one
before it is used."""
MAX_EPOCHS = 9_999
"""More would not sort by name."""


def checkpoints_in(folder: Path) -> list[Path]:
    """Return a folder's checkpoints, oldest first."""
    return [path for path in files_in(folder, "epoch_*.pt") if is_checkpoint(path.name)]


def is_checkpoint(name: str) -> bool:
    """Whether a file has the name of a checkpoint."""
    return NAME.fullmatch(name) is not None


def checkpoint_name(epoch: int, iteration: int | None = None) -> str:
    """Return the file name after `epoch` finished epochs.

    iteration: iterations done in all, within the next epoch; None: between epochs.
    """
    within = "" if iteration is None else f"_{iteration:07d}"
    return f"epoch_{epoch:04d}{within}.pt"


def epochs_of(path: PurePath | str) -> int:
    """Return how many epochs were finished when a checkpoint was written."""
    return int(PurePath(path).stem.split("_")[1])
