"""The file that says why a run failed."""

from pathlib import Path

from sweeps.store import write_json


def write_failure(folder: Path, kind: str, message: str, details: str) -> None:
    """Write a run's failure.json: its kind in a word, the message for a person, the traceback."""
    write_json(folder / "failure.json", {"kind": kind, "message": message, "traceback": details})
