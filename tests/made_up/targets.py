"""Made-up targets for a driver, without a training behind them, and what is heard of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.run.dispatch import Dispatch, End, Numbers, Source, TargetStatus
from sweeps.run.faults import Cause, unexplained
from sweeps.store.attempts import Target
from sweeps.store.failures import ErrorNote
from sweeps.store.store import Store


@dataclass(frozen=True)
class Piece:
    run_id: str

    @property
    def cam_id(self) -> str:
        return f"cam-{self.run_id}"

    @property
    def name(self) -> str:
        return f"trial {self.run_id}"


class Pieces(Source[Piece]):
    """A source of made-up targets, which writes down what it is told."""

    def __init__(self, root: Path, names: list[str]) -> None:
        super().__init__(map(Piece, names))
        self.root = root
        self.status: TargetStatus = "done"
        self.stopped_at = 99.0
        self.given_up: list[ErrorNote] = []

    def folder(self, target: Piece) -> Path:
        path = self.root / target.run_id
        path.mkdir(exist_ok=True)
        return path

    def reported(self, target: Piece, record: Numbers) -> bool:
        return bool(record["epoch"] >= self.stopped_at)

    def ended(self, target: Piece) -> End:
        return End(self.status, "diverged: too fast" if self.status == "failed" else "")

    def gave_up(self, target: Piece, note: ErrorNote) -> None:
        self.given_up.append(note)


class Scene:
    """A driver of targets, and all that it says of them; a listener."""

    def __init__(self, root: Path, source: Source[Any]) -> None:
        self.store = Store(root)
        self.why_end: str | None = None
        """Why nothing may start any more."""
        self.heard: list[tuple[str, str, float | None]] = []
        """(which target, status, its epoch) of all that listeners were told."""
        self.said: list[str] = []
        self.ends: list[tuple[str, str]] = []
        """(id of a training, why the attempt ended) of all that the ledger was told."""
        self.dispatch: Dispatch[Any] = Dispatch(
            source,
            [self],
            lambda: self.why_end,
            self.said.append,
            lambda *end: self.ends.append(end),
        )

    def start(self) -> str:
        """Let the next target begin; return its run id."""
        target = self.dispatch.next()
        self.dispatch.begun(target.run_id)
        return target.run_id

    def breaks(self, run_id: str, cause: Cause = "killed", words: str = "The actor died") -> None:
        """Let a process end without a note of an error; words: Ray's."""
        self.dispatch.broke(unexplained(run_id, cause, words))

    def update(self, trial: Target, *, status: str, record: Numbers | None = None) -> None:
        self.heard.append((trial.run_id, status, record and record["epoch"]))
