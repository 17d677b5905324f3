"""Why a run failed: the note that its process leaves, and the file that records it for good."""

import re
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.store.errors import StoreError, comes_again
from sweeps.store.store import read_json, write_json

DIVERGED, NOT_LEARNING = "diverged", "not learning"

KINDS = {"DivergedError": DIVERGED, "NotLearningError": NOT_LEARNING}
"""Class name of an error -> its kind, if different. By name, as the classes load torch."""

MEANINGS = {
    DIVERGED: "a gradient became infinite or NaN, so no step could be taken. Nothing was scored. "
    "The cause is in the settings, most often the learning rate: they will diverge again.",
    NOT_LEARNING: "L_cls was still that of the label frequencies, as if the network saw no image, "
    "so its maps would mean nothing. It was stopped early and not scored. The cause is in the "
    "settings, or --prior-fails-after is too low for a slow start.",
    "hung": "its process made no progress and was ended, again after each restart; the stacks of "
    "its threads are in runs/<id>/stack.txt.",
    "died": "its process ended without an error, again after each restart: often out of memory.",
}
"""Kind of failure -> what it means for the trial. All other kinds are names of errors."""


def failure_kind(error: BaseException) -> str:
    """Return an error's kind: one of KINDS, or the name of its class."""
    name = type(error).__name__
    return KINDS.get(name, name)


def meanings(kinds: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return (kind, what it means), once for each of these kinds that has a meaning."""
    return tuple((kind, MEANINGS[kind]) for kind in dict.fromkeys(kinds) if kind in MEANINGS)


@dataclass(frozen=True)
class ErrorNote:
    """The error that ended an attempt, as its process saw it."""

    kind: str
    message: str
    where: str
    """File, line and function that raised it; "" where that is not known."""
    traceback: str
    comes_again: bool = False
    """Whether a retry would meet it again."""
    of_store: bool = False
    """Whether the store is at fault, not the attempt: a full disk, a bucket that is away."""

    @property
    def signature(self) -> tuple[str, str, str]:
        """Equal for equal errors, whatever numbers and addresses their messages contain."""
        lines = self.message.strip().splitlines() or [""]
        return self.kind, re.sub(r"0x[0-9a-f]+|\d+", "#", lines[-1]), self.where

    def __str__(self) -> str:
        at = f" (at {self.where})" if self.where else ""
        return f"{self.kind}: {self.message}{at}"


def note_of(error: BaseException) -> ErrorNote:
    """Describe an error."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    details = "".join(traceback.format_exception(error))
    return ErrorNote(
        failure_kind(error),
        str(error),
        where,
        details,
        comes_again(error),
        isinstance(error, StoreError),
    )


def write_note(folder: Path, note: ErrorNote) -> None:
    """Leave a note in a run's folder, for the driver."""
    write_json(folder / "error.json", asdict(note))


def take_note(folder: Path) -> ErrorNote | None:
    """Read and remove the note that a trial's process left; None if there is none.

    Of a note that cannot be read, the reason is returned in its place.
    """
    path = folder / "error.json"
    try:
        note = ErrorNote(**read_json(path))
    except (StoreError, TypeError):  # there is none, or half of it from a node that is lost
        return None
    except OSError as error:
        return note_of(error)
    path.unlink(missing_ok=True)
    return note
