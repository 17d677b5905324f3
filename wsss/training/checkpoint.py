"""Checkpoints, written atomically: model, optimiser, position and random state."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from torch import nn

from wsss.basics.errors import ForeseenError, let_through
from wsss.basics.files import files_in, open_file, whole_or_absent
from wsss.training.checkpoint_names import KEPT_CHECKPOINTS, checkpoint_name, checkpoints_in

NOT_BROKEN = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
"""What says nothing about a checkpoint: this machine has no room for it, or its GPU fails."""

logger = logging.getLogger(__name__)


class Position(NamedTuple):
    """How far a training is."""

    epoch: int
    """Finished epochs."""
    iteration: int
    """Finished iterations."""
    rows: tuple[tuple[float, ...], ...] = ()
    """The numbers of each iteration of an unfinished epoch; () between epochs."""
    seconds: float = 0.0
    """Spent on the unfinished epoch."""


class OtherNetworkError(ForeseenError, RuntimeError):
    """An intact checkpoint of another training, or of a network with other parts or sizes."""


class CheckpointFolder:
    """Checkpoints in one folder, newest last, named as checkpoint_names.py says.

    owner: the training's id, written into each checkpoint and required of it; "": any.
    after_save: called with each checkpoint once it is on disk, for example to copy it elsewhere.
    is_wanted: asked after each step whether to save one now, within the epoch.
    """

    def __init__(
        self,
        folder: Path,
        *,
        owner: str = "",
        after_save: Callable[[Path], None] | None = None,
        is_wanted: Callable[[], bool] | None = None,
    ) -> None:
        self.folder, self.owner = folder, owner
        self.after_save, self.is_wanted = after_save, is_wanted

    def paths(self) -> list[Path]:
        """Return the checkpoints on disk, oldest first."""
        return checkpoints_in(self.folder)

    def save(self, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Write a checkpoint by atomic rename, then delete all but the last KEPT_CHECKPOINTS.

        Also deleted is what a process that was killed while writing has left.
        Raises OSError if the disk is full.
        """
        within = position.iteration if position.rows else None
        path = self.folder / checkpoint_name(position.epoch, within)
        state = {
            "owner": self.owner,
            "position": list(position),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }
        with whole_or_absent(path) as partial, partial.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # torch hides why it could not write
                cause = error.__context__
                if isinstance(cause, OSError):
                    raise OSError(cause.errno, cause.strerror, str(path)) from None
                raise
        for old in [*self.paths()[:-KEPT_CHECKPOINTS], *files_in(self.folder, "*.pt.partial*")]:
            old.unlink()
        if self.after_save:
            self.after_save(path)
        return path

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Position:
        """Load the newest readable checkpoint into place; Position(0, 0) if there is none.

        optimizer: of a training that continues; only then torch's random stream is restored, too.
        A broken file is logged and renamed to `*.broken`; the one before it is used instead.
        Raises OtherNetworkError for an intact checkpoint of another training, OSError for one that
        cannot be read, which may be whole.
        """
        for path in reversed(self.paths()):
            try:
                _check_sums(path)
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                position = Position(*state["position"])
                _require_owner(path, state.get("owner", ""), self.owner)
                _require_fitting(path, state["model"], model.state_dict())
                if optimizer is not None:
                    torch.set_rng_state(state["torch_rng"])  # of all threads
                    optimizer.load_state_dict(state["optimizer"])  # or refuses it, unchanged
                model.load_state_dict(state["model"])  # last, as it must fit now
            except (OtherNetworkError, *NOT_BROKEN):
                raise
            except Exception as error:  # torch raises many kinds for a broken file
                let_through(error, path)
                logger.warning(
                    "%s: unreadable checkpoint (%s); falling back to the one before it",
                    path,
                    (str(error).splitlines() or [type(error).__name__])[0],
                )
                with suppress(FileNotFoundError):  # another rank was faster
                    path.rename(path.with_suffix(".broken"))
                continue
            return position
        return Position(0, 0)


def _require_owner(path: Path, found: str, owner: str) -> None:
    """Raise OtherNetworkError if both owners are known and differ."""
    if found and owner and found != owner:
        raise OtherNetworkError(
            f"{path}: of another training ({found}, not {owner}); put this training's own "
            "checkpoint back, or delete the file to train from the one before it"
        )


def _require_fitting(path: Path, found: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise OtherNetworkError unless both have tensors of the same names and shapes."""
    shapes = [{name: tuple(x.shape) for name, x in each.items()} for each in (found, own)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        there, asked = (each.get(name, "absent") for each in shapes)
        if there != asked:
            raise OtherNetworkError(
                f"{path}: of another network: {name} is {there}, and {asked} by its settings and "
                "classes; use settings and checkpoints of one training, or train in another folder"
            )


def _check_sums(path: Path) -> None:
    """Raise ValueError or BadZipFile for altered content, which torch's reader does not check."""
    with open_file(path) as file, ZipFile(file) as archive:
        if name := archive.testzip():
            raise ValueError(f"altered: the checksum of {name} is wrong")
