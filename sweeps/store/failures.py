"""Why a run failed: the note that its process leaves, and the file that says it for good."""

import json
import re
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.store.errors import comes_again
from sweeps.store.store import write_json

DIVERGED, NOT_LEARNING = "diverged", "not learning"

KINDS = {"DivergedError": DIVERGED, "NotLearningError": NOT_LEARNING}
"""Class of error -> its kind, if that is not its own name. By name: the classes load torch."""

MEANINGS = {
    DIVERGED: "a gradient became infinite or NaN, so that no step could be taken. Nothing was "
    "scored. The settings are at fault, most often the learning rate: under them it comes again.",
    NOT_LEARNING: "L_cls was still that of the label frequencies, as if the network saw no image, "
    "so its maps would say nothing. It was ended early and not scored. The settings are at fault, "
    "or --prior-fails-after is too low for a slow start.",
    "hung": "its process made no progress and was ended, again after each restart; the stacks of "
    "its threads are in runs/<id>/stack.txt.",
    "died": "its process ended without a word, again after each restart: often for want of memory.",
}
"""Kind of failure -> what it says about the trial. All other kinds are names of errors."""


def failure_kind(error: BaseException) -> str:
    """Return an error's kind: a word or two, or the name of its class."""
    name = type(error).__name__
    return KINDS.get(name, name)


def meanings(kinds: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return (kind, what it means), once for each of these kinds that has a meaning."""
    return tuple((kind, MEANINGS[kind]) for kind in dict.fromkeys(kinds) if kind in MEANINGS)


def write_failure(folder: Path, kind: str, message: str, details: str) -> None:
    """Write a run's failure.json.

    kind: as `failure_kind` returns; message: for a person; details: the traceback.
    """
    write_json(folder / "failure.json", {"kind": kind, "message": message, "traceback": details})


@dataclass(frozen=True)
class ErrorNote:
    """The error that ended an attempt, as its process saw it."""

    kind: str
    message: str
    where: str
    """File, line and function which raised it; "" where that is not known."""
    traceback: str
    comes_again: bool = False
    """Whether a restart would meet it again."""

    @property
    def signature(self) -> tuple[str, str, str]:
        """Equal for equal errors, whatever numbers and addresses are in their messages."""
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
    return ErrorNote(failure_kind(error), str(error), where, details, comes_again(error))


def write_note(folder: Path, note: ErrorNote) -> None:
    """Leave an error in a run's folder, where the driver finds it."""
    write_json(folder / "error.json", asdict(note))


def take_note(folder: Path) -> ErrorNote | None:
    """Read and remove the error that a trial's process left; None if it left none."""
    path = folder / "error.json"
    try:
        note = ErrorNote(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    path.unlink(missing_ok=True)
    return note
