"""What the records of a store hold: checked when they are read, so that nobody else need do so.

A key that is not listed may have any value. Any key may be absent, as older versions wrote fewer;
whoever needs one that is absent gets an error with the file's name.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from sweeps.store.errors import StoreError
from wsss.basics.strict import Percent, first_problem

AGAIN = "delete it, and give the same command again"
"""The usual remedy for a broken record."""


FINITE = ConfigDict(allow_inf_nan=False)
"""Of scores; a loss may be infinite."""


class _Result(TypedDict, total=False):
    """done.json, of any stage."""

    __pydantic_config__ = FINITE  # type: ignore[misc]  # how pydantic wants it

    id: str
    made_from: dict[str, str]
    checkpoint: str
    num_images: int
    classes: list[str]
    data: dict[str, int] | str
    environment: dict[str, str | int]
    train_seconds: float
    inference_seconds: float
    score_seconds: float
    miou: Percent
    pixel_accuracy: Percent
    iou: dict[str, Percent | None]
    labels_score: dict[str, Any] | None
    score: dict[str, Any] | None
    miou_fixed: Percent
    miou_best: Percent
    miou_held_out: Percent | None
    held_out_thresholds: list[float]
    best_threshold: float
    fixed_threshold: float
    precision_fixed: Percent | None
    recall_fixed: Percent | None
    iou_fixed: list[Percent | None]
    iou_best: list[Percent | None]
    curve: list[Annotated[list[float], Field(min_length=2, max_length=2)]]


def _fitting(found: _Result) -> _Result:
    """Return a result. Raises ValueError unless its IoUs are of background and classes."""
    for ious in (found.get("iou_fixed"), found.get("iou_best")):
        if ious and "classes" in found and len(ious) != 1 + len(found["classes"]):
            raise ValueError(f"{len(ious)} IoUs for background and {len(found['classes'])} classes")
    return found


class _Epoch(TypedDict, total=False):
    """An epoch of a training."""

    epoch: int | None
    loss: float | None
    collapsed: float | None
    seconds: float
    step_losses: list[float | None]
    dead: dict[str, float]
    area: dict[str, float]
    pulls: dict[str, float]


class _Attempt(TypedDict, total=False):
    """What an attempt at a training starts with."""

    origin: dict[str, str]
    resumed: bool


class _Failure(TypedDict, total=False):
    """Why a run failed."""

    kind: str
    message: str
    traceback: str


class _Warning(TypedDict, total=False):
    """That a training is still at the label prior."""

    iteration: float
    message: str


class _Judged(TypedDict):
    """A closing score of a search, in percent."""

    __pydantic_config__ = FINITE  # type: ignore[misc]

    objective: Percent
    threshold: float
    held_out: Percent


RESULT = TypeAdapter(Annotated[_Result, AfterValidator(_fitting)])
EPOCH, ATTEMPT = TypeAdapter(_Epoch), TypeAdapter(_Attempt)
FAILURE, WARNING = TypeAdapter(_Failure), TypeAdapter(_Warning)
HELD_OUT = TypeAdapter(dict[str, _Judged])
PAGES = TypeAdapter(dict[str, Annotated[str, Field(pattern="^https?://")]])


class Checked(dict[str, Any]):
    """A record of this file; a key that it lacks is a StoreError."""

    def __init__(self, path: Path, found: dict[str, Any]) -> None:
        super().__init__(found)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise StoreError(f"{self.path}: has no {key}; {AGAIN}")


def checked(path: Path, found: Any, kind: TypeAdapter[Any]) -> Checked:
    """Return what was read from a file. Raises StoreError unless it is a record of this kind."""
    if not isinstance(found, dict) or not found:
        raise StoreError(f"{path}: holds no record; {AGAIN}")
    try:
        kind.validate_python(found, strict=True)
    except ValidationError as error:
        raise StoreError(f"{path}: {first_problem(error)}; {AGAIN}") from None
    return Checked(path, found)
