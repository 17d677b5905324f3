"""The note of an unforeseen error, which a trial's process leaves for the driver."""

import json
import re
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from sweeps.store.store import write_json


@dataclass(frozen=True)
class ErrorNote:
    """An unforeseen error as its process saw it."""

    kind: str
    message: str
    where: str
    """File, line and function which raised it."""
    traceback: str

    @property
    def signature(self) -> tuple[str, str, str]:
        """Equal for equal errors, whatever numbers and addresses are in their messages."""
        lines = self.message.strip().splitlines() or [""]
        return self.kind, re.sub(r"0x[0-9a-f]+|\d+", "#", lines[-1]), self.where

    def __str__(self) -> str:
        return f"{self.kind}: {self.message} (at {self.where})"


def note_of(error: BaseException) -> ErrorNote:
    """Describe an error."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    details = "".join(traceback.format_exception(error))
    return ErrorNote(type(error).__name__, str(error), where, details)


def write_note(folder: Path, note: ErrorNote) -> None:
    """Leave an error in a run's folder, for the driver to find."""
    write_json(folder / "error.json", asdict(note))


def take_note(folder: Path) -> ErrorNote | None:
    """Read and remove the error that a trial's process left; None if it died without a word."""
    path = folder / "error.json"
    try:
        note = ErrorNote(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    path.unlink(missing_ok=True)
    return note
