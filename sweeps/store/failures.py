"""The file that says why a run failed, and what each kind of failure means."""

from collections.abc import Iterable
from pathlib import Path

from sweeps.store.store import write_json

DIVERGED, NOT_LEARNING = "diverged", "not learning"

KINDS = {"DivergedError": DIVERGED, "NotLearningError": NOT_LEARNING}
"""By class, for those with a word of their own; named, as the classes' modules load torch."""

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
"""What a kind of failure says about the trial; others are names of errors."""


def failure_kind(error: BaseException) -> str:
    """Return an error's kind in a word or two."""
    name = type(error).__name__
    return KINDS.get(name, name)


def meanings(kinds: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return (kind, what it means) of each of these kinds that has a meaning, once."""
    return tuple((kind, MEANINGS[kind]) for kind in dict.fromkeys(kinds) if kind in MEANINGS)


def write_failure(folder: Path, kind: str, message: str, details: str) -> None:
    """Write a run's failure.json: its kind in a word, the message for a person, the traceback."""
    write_json(folder / "failure.json", {"kind": kind, "message": message, "traceback": details})
