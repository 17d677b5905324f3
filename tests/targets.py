"""Made-up targets for a driver, without a training behind them."""

from dataclasses import dataclass
from pathlib import Path

from sweeps.run.dispatch import End, Numbers, Source, TargetStatus
from sweeps.run.faults import Break


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
        self.given_up: list[Break] = []

    def folder(self, target: Piece) -> Path:
        path = self.root / target.run_id
        path.mkdir(exist_ok=True)
        return path

    def reported(self, target: Piece, record: Numbers) -> bool:
        return bool(record["epoch"] >= self.stopped_at)

    def ended(self, target: Piece) -> End:
        return End(self.status, "diverged: too fast" if self.status == "failed" else "")

    def gave_up(self, target: Piece, broke: Break) -> None:
        self.given_up.append(broke)
